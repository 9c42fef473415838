"""All contrast sets that ship, beside each other and beside the corpus that maps are fitted on."""

import re

import pytest

from contrans.concepts import contrast_set, contrast_set_names, contrast_sets
from contrans.maps import corpus
from contrans.maps.corpora import check_circularity

# Names of feelings beyond the six labels and their nearest kin, in the forms that a sentence would use.
FEELINGS = (
    "alarm(ed|ing)|anguish|anxi(ous|ously|ety)|appal(led|ling)|apprehensi(ve|on)|aversion"
    "|awestruck|baffled|bewilder(ed|ing|ment)|bitter(ly|ness)|bliss(ful|fully)?|bored(om)?|content(ed|ment)|despair(ing)?"
    "|deject(ed|ion)|despis(e|es|ed)|detest(s|ed)?|disappoint(ed|ing|ment)|dismay(ed)?|distress(ed|ing)?|dread(s|ed|ful)?"
    "|dumbfounded|eager(ly)?|ecstatic|elated|embarrass(ed|ing|ment)|enrag(e|ed|ing)|exasperat(ed|ing|ion)|excit(ed|ing|ement)"
    "|flabbergasted|frustrat(ed|ing|ion)|gloom(y)?|grateful|gratitude|gross(ed)?|guilt(y)?|hat(e|es|ed|red)|heartbroken"
    "|helpless(ness)?|horrif(ied|ying)|horror|hostil(e|ity)|indigna(nt|tion)|infuriat(ed|ing)|jealous(y)?|jubilant|livid"
    "|loath(e|es|ed|ing)|lonel(y|iness)|mad|melanchol(y|ic)|miser(y|able)|mourn(s|ed|ing|ful)|nervous(ly)?"
    "|optimis(m|tic)|pleas(ed|ure)|petrified|pride|proud(ly)?|regret(s|ted)?|relie(f|ved)|resent(s|ed|ful|ment)"
    "|shame(d)?|sicken(ed|ing)|sob(s|bed|bing)?|speechless|stunned|thrill(ed|ing)|uneas(y|e)|upset(ting)?|weep(s|ing)?|wept"
    "|worr(y|ied|ies|ying)|wrath|yuck"
)


@pytest.mark.parametrize("name", contrast_set_names())
def test_every_set_says_whose_it_is_and_how_it_is_read(name: str) -> None:
    shipped = contrast_set(name)
    assert shipped.licence == "Apache-2.0"
    assert "no third-party text" in shipped.author
    assert shipped.template.count("{text}") == 1
    assert all(prompt.strip() == prompt for prompt in (e.prompt for e in shipped.positives + shipped.negatives))


@pytest.mark.parametrize("name", contrast_set_names())
def test_the_corpus_holds_no_text_of_a_set(name: str) -> None:
    check_circularity(corpus("passages").texts, contrast_set(name).texts)


def test_scenarios_name_no_feeling() -> None:
    named = re.compile(rf"\b({FEELINGS})\b", re.IGNORECASE)
    scenarios = [e.text for c in contrast_sets(["emotion/*"]) for e in c.positives]
    assert [(text, found.group()) for text in scenarios if (found := named.search(text))] == []


def test_sets_share_no_text() -> None:
    owner: dict[str, str] = {}
    for name in contrast_set_names():
        own = contrast_set(name)
        # a family's negatives are its other members' texts
        texts = own.positives if name.startswith("emotion/") else own.positives + own.negatives
        for text in {" ".join(e.text.casefold().split()) for e in texts}:
            assert owner.setdefault(text, name) == name
