"""Defines the kinds of tasks that answer from a given text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from shiftlens.prompts.verifiable.kind import Draw, Kind, Task

_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]


def _quote(draw: Draw) -> Task:
    sentences = draw.material.sentences
    wanted = draw.item(sentences)
    other = sentences[(draw.index + draw.shift + len(sentences) // 2) % len(sentences)]
    pair = [wanted.text, other.text]
    draw.rng.shuffle(pair)
    checks = [{"name": "contains", "text": wanted.text}, {"name": "without", "text": other.text}]
    slots = {"text": " ".join(pair), "topic": wanted.topic}
    return Task(slots, {"name": "all", "checks": checks}, f'"{wanted.text}"')


def _record(draw: Draw) -> Task:
    person = draw.item(draw.material.people)
    values = {"name": person.name, "city": person.city}
    text = draw.material.job_frame.format(name=person.name, job=person.job, city=person.city)
    check = {"name": "json_object", "keys": list(values), "values": values}
    return Task({"text": text}, check, json.dumps(values))


def _job(draw: Draw) -> Task:
    person = draw.item(draw.material.people)
    text = draw.material.job_frame.format(name=person.name, job=person.job, city=person.city)
    checks = [
        {"name": "mentions", "texts": [person.name, person.job]},
        {"name": "words", "least": 3, "most": 12},
    ]
    reference = f"{person.name} is a {person.job}."
    return Task({"text": text, "name": person.name}, {"name": "all", "checks": checks}, reference)


def _greet(draw: Draw) -> Task:
    person = draw.item(draw.material.people)
    named = {"name": "mentions", "texts": [person.name]}
    # Without the last check, a copy of the instruction would pass.
    checks = [named, {"name": "words", "least": 2, "most": 30}, {"name": "without", "text": "name"}]
    slots = {"name": f"{person.name} {person.surname}"}
    reference = f"Hello {person.name}, it is nice to meet you!"
    return Task(slots, {"name": "all", "checks": checks}, reference)


def _email(draw: Draw) -> Task:
    person = draw.item(draw.material.people)
    email = f"{person.name}.{person.surname}@{draw.material.mail_host}".lower()
    text = draw.material.email_frame.format(name=person.name, city=person.city, email=email)
    return Task({"text": text}, {"name": "equals", "text": email, "ignore_case": True}, email)


def _briefly(text: str, most: int) -> Mapping[str, Any]:
    """Make a check that the response contains ``text`` and is short; a copy of the prompt is too long."""
    checks = [{"name": "contains", "text": text}, {"name": "words", "least": 1, "most": most}]
    return {"name": "all", "checks": checks}


def _date(draw: Draw) -> Task:
    person = draw.item(draw.material.people)
    year = draw.rng.randint(*draw.material.years)
    date = f"{draw.rng.randint(1, 28)} {draw.rng.choice(_MONTHS)} {year}"
    text = draw.material.date_frame.format(name=person.name, city=person.city, date=date)
    slots = {"text": text, "name": person.name}
    return Task(slots, _briefly(date, 10), f"The date is {date}.")


def _phone(draw: Draw) -> Task:
    person = draw.item(draw.material.people)
    phone = f"{draw.material.area}{draw.rng.randint(10, 99)}"
    text = draw.material.phone_frame.format(name=person.name, city=person.city, phone=phone)
    return Task({"text": text, "name": person.name}, _briefly(phone, 12), f"The number is {phone}.")


def _yes_no(draw: Draw) -> Task:
    statement, question, answer = draw.item(draw.material.facts)
    checks = [{"name": "starts_with", "text": answer.split(",")[0]}, {"name": "words", "least": 3, "most": 25}]
    return Task({"text": statement, "question": question}, {"name": "all", "checks": checks}, answer)


def _one_word(draw: Draw) -> Task:
    thing, colour = draw.item(draw.material.colours)
    text = draw.material.colour_frame.format(thing=thing, colour=colour)
    checks = [{"name": "words", "least": 1, "most": 1}, {"name": "mentions", "texts": [colour]}]
    return Task({"text": text, "thing": thing}, {"name": "all", "checks": checks}, colour.capitalize())


def _glossary(draw: Draw) -> Task:
    chosen = draw.rng.sample(draw.material.glossary, 4)
    pairs = draw.rng.sample(chosen, 3)
    slots = {
        "glossary": ", ".join(f"{english} = {invented}" for english, invented in chosen),
        "words": ", ".join(english for english, _ in pairs),
    }
    items = [invented for _, invented in pairs]
    return Task(slots, {"name": "order", "items": items}, ", ".join(items))


def _word_limit(draw: Draw) -> Task:
    text, topic, summary = draw.item(draw.material.passages)
    checks = [{"name": "words", "least": 3, "most": 8}, {"name": "mentions", "texts": [topic]}]
    return Task({"text": text, "topic": topic}, {"name": "all", "checks": checks}, summary)


def _start_with(draw: Draw) -> Task:
    sentence = draw.item(draw.material.sentences)
    opening = draw.item(draw.material.openings)
    text = sentence.text
    named = {"name": "mentions", "texts": [sentence.topic, sentence.old]}
    check = {"name": "all", "checks": [{"name": "starts_with", "text": opening}, named]}
    reference = f"{opening} {text[0].lower()}{text[1:]}"
    return Task({"text": text, "opening": opening}, check, reference)


READING = (
    Kind(
        "job_sentence",
        _job,
        test=(
            "<What is the job of {name}? Answer in a short sentence with the name.>\nText: {text}",
            "{text}\n\n<Write one short sentence that says what {name} does for a living.>",
        ),
        train=(
            "<Tell me in a few words which profession {name} has, and use the name.>\n{text}",
            "Note: {text}\n<As what does {name} work? Reply with a brief sentence that names the person.>",
            "<Read the text and finish this sentence in full: {name} is a ...>\n{text}",
        ),
    ),
    Kind(
        "greet_by_name",
        _greet,
        test=(
            "<Write a short greeting to this person and use the name.>\nName: {name}",
            "Guest: {name}\n<Say hello to the guest by name.>",
        ),
        train=(
            "<Welcome our visitor with a short line, using the name.>\nVisitor: {name}",
            "New member: {name}\n<Give the new member a warm welcome by name.>",
            "<Greet this person in one friendly line, name included:> {name}",
        ),
    ),
    Kind(
        "quote_sentence",
        _quote,
        test=(
            '<Quote the sentence that has the word "{topic}".>\nText: {text}',
            '{text}\n\n<Copy only the sentence with "{topic}" from the text above, word for word.>',
        ),
        train=(
            '<Which sentence below speaks of "{topic}"? Repeat it exactly.>\n{text}',
            'Passage: {text}\n<Cite the one sentence in which "{topic}" occurs, and leave out the other.>',
            '<Find the word "{topic}" here and write down the whole sentence around it:> {text}',
        ),
    ),
    Kind(
        "json_record",
        _record,
        test=(
            '<Write the data as JSON with the keys "name" and "city".>\nText: {text}',
            '{text}\n<Answer with a JSON object that has only the keys "name" and "city".>',
        ),
        train=(
            '<Turn this into JSON with exactly two keys, "name" and "city":> {text}',
            'Input: {text}\n<Output one JSON object, with "name" and "city" as its keys, and nothing more.>',
            "<Extract name and city as a JSON object.>\n{text}\n<Use just these two keys.>",
        ),
    ),
    Kind(
        "find_email",
        _email,
        test=(
            "<Extract the email address from this text:> {text}",
            "Text: {text}\n<Give only the email address.>",
        ),
        train=(
            "<Copy out the e-mail address you find below, and nothing else.>\n{text}",
            "{text}\n\n<Reply with just the e-mail address from the line above.>",
            "<Look for an address with @ and write it down on its own:> {text}",
        ),
    ),
    Kind(
        "find_date",
        _date,
        test=(
            "{text}\n\n<On which date did {name} move? Answer with day, month and year.>",
            "<Find the date in this text:> {text}",
        ),
        train=(
            "<Tell me the day, month and year that occur here:> {text}",
            "{text}\n\n<When was the poem printed? Write the date as it stands above.>",
            "<Read the line and say which date it gives.>\n{text}",
        ),
    ),
    Kind(
        "find_phone",
        _phone,
        test=(
            "<What is the phone number of {name}?>\nText: {text}",
            "{text}\n\n<Tell me the phone number given in the text.>",
        ),
        train=(
            "<Which number must I dial for {name}? Write its digits.>\n{text}",
            "{text}\n\n<Repeat the telephone number from the line above.>",
            "<Find the telephone number here:> {text}",
        ),
    ),
    Kind(
        "yes_no",
        _yes_no,
        test=(
            "<Answer with a sentence that starts with Yes or No.>\nText: {text}\n<{question}>",
            "{text}\n<{question} Begin with Yes or No and give the reason.>",
        ),
        train=(
            "<Read the text. Reply with yes or no first and then explain briefly.>\n{text}\n<{question}>",
            '{text}\n\n<{question} Let "Yes" or "No" be your first word, and use a whole sentence.>',
            "<{question} Say yes or no, a comma, and what the fact tells you.>\nFact: {text}",
        ),
    ),
    Kind(
        "one_word",
        _one_word,
        test=(
            "<Answer in one word. What colour is the {thing}?>\nText: {text}",
            "{text}\n<What colour is the {thing}? Use a single word.>",
        ),
        train=(
            "<Name the colour of the {thing} with just one word:> {text}",
            "{text}\n\n<Which colour does the {thing} have? One word is enough.>",
            "<Reply with one word only.>\n{text}\n<In which colour is the {thing}?>",
        ),
    ),
    Kind(
        "glossary",
        _glossary,
        test=(
            "<Translate the words with the glossary.>\nGlossary: {glossary}\nWords: {words}",
            "{glossary}\n\n<Use the list above to translate, and write only the translation:> {words}",
        ),
        train=(
            "<Replace each word by its partner in the table.>\nTable: {glossary}\nInput: {words}",
            "Code book: {glossary}\nMessage: {words}\n<Put the message into code, with no other text.>",
            "Secret language: {glossary}\n<How do you say this in it? Give no other words.>\n{words}",
        ),
    ),
    Kind(
        "word_limit",
        _word_limit,
        test=(
            '<Summarize the text in at most 8 words. Use the word "{topic}".>\nText: {text}',
            '{text}\n\n<Sum this up in 3 to 8 words, one of them "{topic}".>',
        ),
        train=(
            '<Write a headline of no more than 8 words with "{topic}" in it.>\n{text}',
            "Story: {text}\n<Tell the same in eight words or fewer. Mention the {topic}.>",
            '<Shorten this to eight words at most, and keep "{topic}":> {text}',
        ),
    ),
    Kind(
        "start_with",
        _start_with,
        test=(
            '<Say what the text tells us. Start with the words "{opening}".>\nText: {text}',
            '{text}\n\n<Restate the sentence above. Your answer must begin with "{opening}".>',
        ),
        train=(
            '<Put the phrase "{opening}" first and then repeat this:> {text}',
            'Line: {text}\n<Write the line again and open your reply with "{opening}".>',
            '<Begin with "{opening}" and go on with the content of this sentence:> {text}',
        ),
    ),
)
