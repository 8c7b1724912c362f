"""Defines the kinds of tasks that work on a list of words."""

from __future__ import annotations

from shiftlens.prompts.verifiable.kind import Draw, Kind, Task


def _bullets(draw: Draw) -> Task:
    items = draw.group(3)
    check = {"name": "bullets", "count": 3, "items": items}
    return Task({"list": ", ".join(items)}, check, "\n".join(f"- {item}" for item in items))


def _numbered(draw: Draw) -> Task:
    items = draw.group(4)
    check = {"name": "numbered", "count": 4, "items": items}
    reference = "\n".join(f"{number}. {item}" for number, item in enumerate(items, 1))
    return Task({"list": ", ".join(items)}, check, reference)


def _commas(draw: Draw) -> Task:
    items = draw.group(4)
    check = {"name": "separated", "by": ",", "items": items}
    return Task({"list": "\n".join(items)}, check, ", ".join(items))


def _hyphens(draw: Draw) -> Task:
    items = draw.group(4)
    check = {"name": "separated", "by": "-", "items": items}
    return Task({"list": " ".join(items)}, check, "-".join(items))


def _reverse(draw: Draw) -> Task:
    items = draw.group(4)
    turned = items[::-1]
    return Task({"list": ", ".join(items)}, {"name": "order", "items": turned}, ", ".join(turned))


def _sort(draw: Draw) -> Task:
    items = draw.group(4)
    ordered = sorted(items)
    return Task({"list": ", ".join(items)}, {"name": "order", "items": ordered}, ", ".join(ordered))


def _copy_list(draw: Draw) -> Task:
    items = draw.group(4)
    return Task({"list": ", ".join(items)}, {"name": "order", "items": items}, ", ".join(items))


def _count(draw: Draw) -> Task:
    count = draw.rng.randint(3, 7)
    numeral = {"name": "number", "value": count}
    check = {"name": "all", "checks": [numeral, {"name": "words", "least": 3, "most": 20}]}
    return Task({"list": ", ".join(draw.group(count))}, check, f"There are {count} words in the list.")


def _choose(draw: Draw) -> Task:
    right, *wrong = draw.rng.sample(draw.material.groups, 3)
    words = [draw.rng.choice(words) for _, words in (right, *wrong)]
    answer, others = words[0], words[1:]
    draw.rng.shuffle(words)
    letter = "ABC"[words.index(answer)]
    options = "\n".join(f"{mark}) {word}" for mark, word in zip("ABC", words, strict=True))
    checks = [
        {"name": "choice", "letter": letter, "others": others},
        {"name": "mentions", "texts": [answer]},
    ]
    return Task(
        {"category": right[0], "options": options},
        {"name": "all", "checks": checks},
        f"The answer is {letter}) {answer}.",
    )


LISTS = (
    Kind(
        "copy_list",
        _copy_list,
        test=("<Repeat this list:> {list}", "List: {list}\n<Write the same list again.>"),
        train=(
            "<Copy the words below in the same order.>\n{list}",
            "{list}\n\n<Give me back the words above as they are.>",
            "<Say these words after me, and nothing else:> {list}",
        ),
    ),
    Kind(
        "three_bullets",
        _bullets,
        test=(
            "<Write these items as exactly three bullet points:> {list}",
            "Items: {list}\n<Make a bullet list of the items, one per line, each starting with a dash.>",
        ),
        train=(
            "<Put the words below in a list with three bullets.>\n{list}",
            '{list}\n\n<Show each of the words above on its own line after "- ".>',
            "<Format as bullet points, and add nothing:> {list}",
        ),
    ),
    Kind(
        "numbered_list",
        _numbered,
        test=(
            "<Write these items as a numbered list from 1 to 4:> {list}",
            "Items: {list}\n<Number the items, one per line, without any other text.>",
        ),
        train=(
            "<Make a list with the numbers 1., 2., 3. and 4. out of these words.>\nWords: {list}",
            "{list}\n\n<Turn the words above into a numbered list.>",
            "<Give each word its own line and a number.>\n{list}\n<Start with 1.>",
        ),
    ),
    Kind(
        "comma_list",
        _commas,
        test=(
            "<Write these words in one line, separated by commas:>\n{list}",
            "{list}\n\n<Join the words above with commas.>",
        ),
        train=(
            "<Put the lines below on a single line with commas between them.>\n{list}",
            "Words:\n{list}\n<Make one comma-separated line of the words.>",
            "<Turn this column into a row that uses commas:>\n{list}",
        ),
    ),
    Kind(
        "hyphen_join",
        _hyphens,
        test=(
            "<Join these words with hyphens:> {list}",
            "Words: {list}\n<Write the words with a hyphen (-) between them instead of a space.>",
        ),
        train=(
            '<Connect the words below with "-" and no spaces.>\n{list}',
            "{list}\n\n<Replace the spaces in the line above by hyphens.>",
            "<Make one long word with hyphens, like a-b-c-d, out of:> {list}",
        ),
    ),
    Kind(
        "reverse_list",
        _reverse,
        test=(
            "<Write this list in reverse order:> {list}",
            "List: {list}\n<Give only the list again, from the last word to the first.>",
        ),
        train=(
            "<Turn the order of these words around, so that the last comes first.>\n{list}",
            "{list}\n\n<Copy the words above backwards, starting with the final one.>",
            "<Reverse the list and write nothing else.>\nWords: {list}",
        ),
    ),
    Kind(
        "sort_words",
        _sort,
        test=(
            "<Sort these words alphabetically:> {list}",
            "Words: {list}\n<Write only the words, in alphabetical order.>",
        ),
        train=(
            "<Put the words below in order from A to Z.>\n{list}",
            "{list}\n\n<Arrange the words above as in a dictionary, with no other text.>",
            "<Order this list by the alphabet:> {list}",
        ),
    ),
    Kind(
        "count_items",
        _count,
        test=(
            "<How many words are in this list? Answer with a full sentence.>\nList: {list}",
            "{list}\n\n<Count the words above and tell me the number in a short sentence.>",
        ),
        train=(
            "<Count the items below and put the number in a sentence.>\n{list}",
            "Items: {list}\n<Say in one sentence how many items you see.>",
            "<Find out how long this list is and answer in a sentence with the number:> {list}",
        ),
    ),
    Kind(
        "choose_option",
        _choose,
        test=(
            "<Which one is {category}? Answer with the letter and the word.>\n{options}",
            "{options}\n\n<Choose the option that is {category}. Write its letter and the word itself.>",
        ),
        train=(
            "<Pick {category} from the options and reply with its letter and word.>\n{options}",
            "Options:\n{options}\n<Only one of them is {category}. Write that letter, then the word.>",
            "<Look for {category}:>\n{options}\n<Name the right letter together with its word.>",
        ),
    ),
)
