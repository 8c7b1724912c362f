"""Contains the material of the test half; not a test itself."""
# ruff: noqa: E501  (tables with one record per line)

from __future__ import annotations

from shiftlens.prompts.verifiable.material import Material, Person, read_sentences, rows

_SENTENCES = """
The cat sleeps on the *red* chair.|cat|blue
The farmer feeds his horses in the *morning*.|farmer|evening
A small boat crossed the *lake* at noon.|boat|river
The museum is closed on *Monday*.|museum|Friday
Our teacher wrote a *long* letter.|teacher|short
The soup needs a little more *salt*.|soup|pepper
Two children played in the *garden*.|children|park
The train leaves from platform *four*.|train|seven
The old clock stopped at *midnight*.|clock|sunrise
The baker sells fresh *bread* every day.|baker|cake
A strong wind broke the *window*.|wind|fence
The library has a *quiet* reading room.|library|bright
The doctor arrived before the *storm*.|doctor|guests
The kitten hid behind the *curtain*.|kitten|door
A young artist painted the *bridge*.|artist|tower
The bus stopped near the *hospital*.|bus|school
"""

_PASSAGES = """
Last winter the old stone arch was closed for repairs because ice had damaged it.|arch|Ice damaged the old arch.
After three days of heavy rain the cellar was full of water, so Sam bought a pump.|cellar|Rain flooded the cellar.
The team scored twice in the last five minutes and won the match by one goal.|match|The team won the match late.
The owl lives alone in the barn, sleeps through the day and hunts mice after dark.|owl|The owl hunts mice after dark.
The lift in our office has been broken for a week, so everybody takes the stairs.|lift|The office lift is broken.
The violinist practised six hours a day for a year before the concert.|concert|Months of practice led to the concert.
"""

_KEYWORDS = """
rain|Soft rain falls on our roof.
cats|Two cats sat in warm sand.
music|Loud music fills this big hall.
fish|Big fish swim in cold ponds.
milk|I drink warm milk.
sun|A bright sun is shining today.
"""

_PEOPLE = """
Clara|Berg|Oslo|painter
Hugo|Ruiz|Madrid|driver
Nadia|Fahmy|Cairo|nurse
Peter|Walsh|Dublin|barber
Yuki|Mori|Osaka|pilot
Omar|Saidi|Tunis|tailor
"""

_FACTS = """
Maria has two brothers and no sisters.|Does Maria have a sister?|No, Maria has no sisters.
Tom drinks tea every morning.|Does Tom drink tea?|Yes, Tom drinks tea every morning.
The shop closes at six in the evening.|Is the shop open at midnight?|No, the shop closes at six.
Rosa learned to swim when she was five.|Can Rosa swim?|Yes, Rosa learned to swim.
All seats in the hall are taken.|Is there a free seat in the hall?|No, all seats are taken.
The tower is taller than the church.|Is the church shorter than the tower?|Yes, the church is shorter.
"""

MATERIAL = Material(
    sentences=read_sentences(_SENTENCES),
    short_sentences=(
        "Birds sing at dawn.",
        "Ice is cold.",
        "Stars shine at night.",
        "Bees make honey.",
        "Fish swim in water.",
        "Sugar tastes sweet.",
    ),
    passages=tuple((text, topic, summary) for text, topic, summary in rows(_PASSAGES)),
    keywords=tuple((word, sentence) for word, sentence in rows(_KEYWORDS)),
    groups=(
        ("an animal", ("lion", "tiger", "zebra", "camel", "monkey", "rabbit", "goat")),
        ("a drink", ("coffee", "juice", "wine", "lemonade", "cocoa", "cider", "beer")),
        ("a tool", ("hammer", "saw", "drill", "axe", "chisel", "wrench", "shovel")),
    ),
    people=tuple(Person(*row) for row in rows(_PEOPLE)),
    email_frame="You can reach {name} at {email} or visit the office in {city}.",
    date_frame="{name} moved to {city} on {date} with two suitcases.",
    phone_frame="The number of {name}'s flat in {city} is {phone}.",
    job_frame="{name} is a {job} from {city}.",
    years=(1970, 1999),
    mail_host="example.com",
    area="555-01",
    colour_frame="The {thing} in the picture is {colour}.",
    colours=(
        ("front door", "green"),
        ("umbrella", "black"),
        ("bicycle", "red"),
        ("sofa", "white"),
        ("balloon", "silver"),
        ("teapot", "turquoise"),
    ),
    facts=tuple((statement, question, answer) for statement, question, answer in rows(_FACTS)),
    glossary=(
        ("house", "dorvik"),
        ("tree", "salum"),
        ("bread", "minto"),
        ("water", "quelba"),
        ("king", "thornu"),
        ("night", "ravosh"),
    ),
    openings=("In short,", "The text says that", "Dear reader,"),
    endings=("The end", "Thank you", "Good night"),
)
