"""Contains the material of the train half."""
# ruff: noqa: E501  (tables with one record per line)

from __future__ import annotations

from shiftlens.prompts.verifiable.material import Material, Person, read_sentences, rows

_SENTENCES = """
The dog carried a *yellow* ball.|dog|green
The gardener waters the *roses* at night.|gardener|tulips
A heavy truck blocked the *road*.|truck|gate
The cinema opens on *Sunday*.|cinema|Tuesday
The captain told a *funny* story.|captain|sad
The tea is still too *hot* to drink.|tea|strong
Three students waited in the *hall*.|students|yard
The ship sails with *nine* passengers.|ship|twelve
The candle burned until *dawn*.|candle|dusk
The carpenter made a new *shelf* for me.|carpenter|table
A loud noise woke the *baby*.|noise|guard
The hotel has a *warm* swimming pool.|hotel|small
The mayor left after the *meeting*.|mayor|lunch
The puppy slept under the *desk*.|puppy|bed
A famous actor bought the *castle*.|actor|island
The taxi waited outside the *station*.|taxi|theatre
The snow covered the whole *village*.|snow|valley
My uncle repairs old *radios*.|uncle|bicycles
The fox ran across the *field*.|fox|path
The poet read the *final* page.|poet|first
A blue parrot landed on the *roof*.|parrot|branch
The dancer forgot her *shoes* at home.|dancer|keys
The stream flows to the *north*.|stream|south
The queen wore a *golden* ring.|queen|heavy
The chef peeled six *potatoes*.|chef|carrots
The engineer drew a *simple* map.|engineer|detailed
The market sells cheap *flowers*.|market|vegetables
The bell rings at *eight* every morning.|bell|ten
The waiter dropped a *glass* plate.|waiter|wooden
Her cousin lives near the *harbour*.|cousin|airport
The moon rose above the *hills*.|moon|trees
A kind neighbour fixed the *lamp*.|neighbour|sink
"""

_PASSAGES = """
The factory stopped work at noon yesterday because a storm had cut the power line.|factory|A storm stopped the factory.
Every Saturday Lena takes the ferry to the island and paints the cliffs until sunset.|ferry|Lena takes the ferry every Saturday.
The wolf followed the herd for two days and turned back when it reached the motorway.|wolf|The wolf gave up the chase.
Our neighbours grew so many pumpkins this year that they gave most of them away.|pumpkins|The neighbours gave away many pumpkins.
The exam had forty questions, and nearly everyone said that there was too little time.|exam|The exam was too long.
Because the oven was too hot, the biscuits turned black and had to be thrown away.|biscuits|The biscuits were burnt.
The parcel was sent to the wrong town and came back to the sender a month later.|parcel|The parcel went to the wrong town.
The choir sang in the square at noon, and hundreds of people stopped to listen.|choir|Hundreds listened to the choir.
The glacier has lost a third of its length since people first measured it.|glacier|The glacier is shrinking.
Ben broke his ankle on a hike and had to wait four hours for a helicopter.|ankle|Ben broke his ankle hiking.
The bakery ran out of flour on Friday, so it sold only fruit pies that day.|bakery|The bakery had no flour.
The comet can be seen with the naked eye once every seventy-six years.|comet|The comet returns every seventy-six years.
"""

_KEYWORDS = """
snow|Cold snow lay on this hill.
dogs|Many dogs run in our park.
books|I study old books all day long.
birds|Small birds sing in spring.
salt|Put a bit of salt in your soup.
gold|Gold is soft, shiny and costly.
ships|Tall ships sail far away.
corn|Corn grows fast in August.
moon|A full moon hung in a dark sky.
frogs|Frogs jump into a cool pond.
wind|A strong wind is blowing now.
grass|Fat cows munch grass all day.
"""

_PEOPLE = """
Alice|Martin|Paris|lawyer
Bruno|Silva|Lisbon|cook
Chen|Wu|Shanghai|plumber
Diana|Conti|Rome|singer
Emil|Novak|Prague|miner
Fatima|Alami|Rabat|dentist
George|Hill|London|judge
Helen|Pappas|Athens|librarian
Ivan|Petrov|Sofia|builder
Julia|Wagner|Vienna|florist
Kofi|Mensah|Accra|banker
Laura|Torres|Lima|writer
"""

_FACTS = """
Jack owns a red car and a boat.|Does Jack own a boat?|Yes, Jack owns a boat.
Sara never eats meat.|Does Sara eat steak?|No, Sara never eats meat.
The pool is open from May to August.|Is the pool open in July?|Yes, the pool is open in July.
Nobody in the village has a telephone.|Is there a telephone in the village?|No, nobody has a telephone.
Milan's aunt works as a dentist.|Is Milan's aunt a painter?|No, she works as a dentist.
The blue bag is heavier than the brown bag.|Is the brown bag lighter?|Yes, the brown bag is lighter.
Every room in the inn has a balcony.|Do the rooms have balconies?|Yes, every room has a balcony.
The last tram leaves at eleven at night.|Is there a tram at two in the morning?|No, the last tram leaves at eleven.
Elsa finished the race before Karl did.|Did Karl beat Elsa?|No, Elsa finished first.
The bridge was built in 1890.|Is the bridge more than fifty years old?|Yes, it was built in 1890.
Paul cannot read music.|Can Paul read music?|No, Paul cannot read music.
The orchard has pear trees and apple trees.|Are there pear trees?|Yes, there are pear trees.
"""

MATERIAL = Material(
    sentences=read_sentences(_SENTENCES),
    short_sentences=(
        "Cows eat grass.",
        "Fire is hot.",
        "Lemons taste sour.",
        "Wood floats on water.",
        "Spiders spin webs.",
        "Snails move slowly.",
        "Frogs jump high.",
        "Glass breaks easily.",
        "Wolves live in packs.",
        "Trees give shade.",
        "Rain makes puddles.",
        "Owls see in the dark.",
    ),
    passages=tuple((text, topic, summary) for text, topic, summary in rows(_PASSAGES)),
    keywords=tuple((word, sentence) for word, sentence in rows(_KEYWORDS)),
    groups=(
        ("a fruit", ("apple", "banana", "cherry", "grape", "lemon", "mango", "peach", "plum")),
        ("a country", ("Brazil", "Canada", "Egypt", "France", "India", "Japan", "Kenya", "Norway")),
        ("a piece of clothing", ("hat", "scarf", "glove", "jacket", "skirt", "sock", "sweater", "belt")),
        ("a musical instrument", ("piano", "violin", "flute", "drum", "guitar", "trumpet", "harp", "cello")),
    ),
    people=tuple(Person(*row) for row in rows(_PEOPLE)),
    email_frame="Please write to {name} in {city} before Thursday: {email}.",
    date_frame="On {date} the newspaper in {city} printed a poem by {name}.",
    phone_frame="Call {phone} to speak with {name}, who is staying in {city}.",
    job_frame="In {city} everyone knows {name}, who works as a {job}.",
    years=(2000, 2024),
    mail_host="example.org",
    area="555-77",
    colour_frame="On the table lies a {colour} {thing}.",
    colours=(
        ("ribbon", "blue"),
        ("envelope", "yellow"),
        ("basket", "brown"),
        ("stone", "grey"),
        ("candle", "pink"),
        ("notebook", "purple"),
        ("feather", "golden"),
        ("towel", "crimson"),
        ("button", "violet"),
        ("blanket", "beige"),
        ("marble", "bronze"),
        ("cushion", "scarlet"),
    ),
    facts=tuple((statement, question, answer) for statement, question, answer in rows(_FACTS)),
    glossary=(
        ("road", "pelka"),
        ("stone", "gruvin"),
        ("child", "lomiri"),
        ("fire", "zatho"),
        ("winter", "oskelt"),
        ("bird", "fimbal"),
        ("hand", "wurdo"),
        ("song", "yelith"),
        ("gate", "carnuk"),
        ("mountain", "hesplo"),
    ),
    openings=("As we read here,", "To sum up,", "My friends,", "It is said that"),
    endings=("That is all", "See you soon", "Good luck", "Have fun"),
)
