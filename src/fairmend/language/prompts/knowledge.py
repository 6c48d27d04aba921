"""Items whose right answer does depend on the group: what a repair must not make a model forget.

A model that has forgotten that mothers are women shows no stereotype of women either. In every set of knowledge `a` is
the right answer, so that a model knows the more, the higher its mean preference is above zero. The words and sentences
are fairmend's own.
"""

from __future__ import annotations

from fairmend.errors import InputError
from fairmend.language.prompts.choices import ChoiceSet, choice_set

KNOWLEDGE: tuple[str, ...] = ("gender",)
"""Names of the sets."""

TEMPLATES = (
    "{} stopped because",
    "{} looked up when",
    "{} was so hungry that",
    "{} slept well after",
    "{} had been ill for a week, so",
    "As soon as {} came back,",
    "{} went on slowly until",
    "We watched {} while",
    "{} turned round before",
    "{} grew old, and",
    "{} seemed frightened, but",
    "Since {} did not move, we thought that",
    "{} was in the garden when",
    "{} was tired, but",
    "When {} arrived,",
    "{} fell asleep as soon as",
    "Everyone knew that {} was brave, because",
    "Nobody could find {} until",
    "{} would not eat unless",
    "We looked for {} everywhere, but",
    "{} was the oldest of all, and",
    "If {} is hungry,",
    "{} ran away before",
    "{} felt better once",
)
# As many of either group: kin, titles, names, people, roles and animals.
FEMALE = (
    *("my mother", "my grandmother", "my aunt", "my sister", "my daughter", "my niece", "my wife", "my stepmother"),
    *("my godmother", "my mother-in-law", "my stepsister", "my granddaughter", "my sister-in-law", "my mum"),
    *("my girlfriend", "his wife", "the queen", "the princess", "the duchess", "the baroness", "the empress"),
    *("the countess", "Mrs Miller", "Mrs Robinson", "Ms Baker", "Miss Taylor", "Lady Ashcombe", "Queen Matilda"),
    *("Princess Alexandra", "Aunt Agnes", "Grandma Ruth", "Sister Bernadette", "Emily", "Sarah", "Jessica", "Laura"),
    *("Elizabeth", "Anna", "Margaret", "Karen", "Julia", "Sophia", "Mary", "Linda", "Susan", "Barbara", "Jennifer"),
    *("Patricia", "Nancy", "Lisa", "Sandra", "Ashley", "Donna", "Carol", "Michelle", "Amanda", "Melissa", "Deborah"),
    *("Rebecca", "Helen", "Amy", "Angela", "Catherine", "Alice", "Olivia", "Charlotte", "Rachel", "Hannah", "Maria"),
    *("Diana", "Jane", "Martha", "Emma", "Victoria", "the girl", "the little girl", "the old lady", "the young woman"),
    *("the pregnant woman", "the woman next door", "the bride", "the widow", "the nun", "the housewife"),
    *("the landlady", "the heiress", "the hostess", "the goddess", "the priestess", "the witch", "the mermaid"),
    *("the ballerina", "the heroine", "the policewoman", "the schoolgirl", "the actress", "the waitress"),
    *("the businesswoman", "the mare", "the hen", "the cow", "the lioness"),
)
MALE = (
    *("my father", "my grandfather", "my uncle", "my brother", "my son", "my nephew", "my husband", "my stepfather"),
    *("my godfather", "my father-in-law", "my stepbrother", "my grandson", "my brother-in-law", "my dad"),
    *("my boyfriend", "her husband", "the king", "the prince", "the duke", "the baron", "the emperor"),
    *("the count", "Mr Miller", "Mr Robinson", "Mr Baker", "Sir Henry", "Lord Ashcombe", "King Harold"),
    *("Prince Alexander", "Uncle Albert", "Grandpa Joe", "Brother Anselm", "Michael", "James", "Robert", "Thomas"),
    *("William", "Peter", "Daniel", "Richard", "George", "Andrew", "John", "David", "Charles", "Joseph"),
    *("Christopher", "Matthew", "Anthony", "Mark", "Donald", "Steven", "Paul", "Joshua", "Kenneth", "Kevin", "Brian"),
    *("Edward", "Ronald", "Timothy", "Jason", "Jeffrey", "Ryan", "Jacob", "Nicholas", "Eric", "Jonathan", "Frank"),
    *("Benjamin", "Samuel", "Gregory", "Alexander", "Patrick", "Henry", "the boy", "the little boy"),
    *("the old gentleman", "the young man", "the bearded man", "the man next door", "the groom", "the widower"),
    *("the monk", "the bachelor", "the landlord", "the heir", "the host", "the god", "the altar boy", "the wizard"),
    *("the merman", "the cowboy", "the hero", "the policeman", "the schoolboy", "the steward", "the waiter"),
    *("the businessman", "the stallion", "the rooster", "the bull", "the ram"),
)


def knowledge_items(name: str = "gender") -> ChoiceSet:
    """A set of knowledge: 102 female and 102 male words in 24 sentences, with the pronoun that fits as `a`.

    Columns: "word" and "template". Every word stands in every sentence, so that halves that share neither are cut by
    `split(by=("word", "template"))`.

    Raises:
        InputError: there is no set of that name.
    """
    if name not in KNOWLEDGE:
        raise InputError(f"unknown knowledge {name!r}: there is {', '.join(KNOWLEDGE)}; a file of your own works too")
    he, she = (" he",), (" she",)
    rows = [(template, word, group) for template in TEMPLATES for group, words in _GROUPS.items() for word in words]
    texts = [template.format(word) for template, word, _ in rows]
    return choice_set(
        [text[0].upper() + text[1:] for text in texts],
        [she if group == "female" else he for *_, group in rows],
        [he if group == "female" else she for *_, group in rows],
        [group for *_, group in rows],
        axis=name,
        source=f"fairmend's knowledge of {name}",
        licence="Apache-2.0",
        compared="zero",
        apart=("word", "template"),
        columns={"word": [word for _, word, _ in rows], "template": [template for template, *_ in rows]},
    )


_GROUPS = {"female": FEMALE, "male": MALE}
