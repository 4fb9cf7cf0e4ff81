"""Which answers to a review are new: what people said of a clip is remembered in data/reviews/, so that it counts once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any

from typing_extensions import TypedDict

from violence_ops.exchange.task import Vote
from violence_ops.records import Label


class Taken(TypedDict):
    """A vote as it is remembered, if it says whose it is; any other is remembered as its label alone, as all once were."""

    label: Label
    by: str
    at: str


@dataclass(frozen=True, slots=True)
class Ballot:
    """What an import says of a clip: everybody's vote, and those of them that no import has taken yet. Of the other answers, how
    many an import has taken, how many are older than what somebody has decided since, and to how many `outdated` ones the same
    person has given another answer since."""

    votes: list[Vote]
    new: list[Vote]
    unchanged: int
    older: int
    outdated: int


def ballot(given: Mapping[str, Sequence[Vote]], known: Mapping[str, Sequence[Vote]], decided: str = "") -> Ballot:
    """The votes on a clip, of those that files have `given` and those `known` from earlier imports, each by review. A person has
    one, the last, in whichever review it was given.

    `decided` is the `moment` at which somebody gave the clip its label otherwise than by a vote: votes of before are not new.
    """
    everything = [*chain.from_iterable([*known.values(), *given.values()])]
    known = {review: identified(some, everything) for review, some in known.items()}
    given = {review: identified(some, everything) for review, some in given.items()}
    brought = [*chain.from_iterable(given.values())]
    last = {vote.by: vote for vote in pooled([*chain.from_iterable(known.values()), *brought]) if vote.by}
    fresh = [vote for review, some in given.items() for vote in unseen(pooled(some), known.get(review, ()))]
    untaken = pooled(vote for vote in fresh if last.get(vote.by, vote) == vote)
    new = [vote for vote in untaken if not vote.at or vote.at > decided]
    people = pooled(brought)
    said_still = [vote for vote in people if last.get(vote.by, vote).label == vote.label]
    return Ballot(
        votes=[last.get(vote.by, vote) for vote in people],
        new=new,
        unchanged=len(said_still) - len(untaken),
        older=len(untaken) - len(new),
        outdated=sum(last.get(vote.by, vote).label != vote.label for vote in set(brought)),
    )


def identified(votes: Iterable[Vote], among: Iterable[Vote]) -> list[Vote]:
    """These votes with all that `among` says of whose they are: who is known by a number alone in one file, or was in an earlier
    version, is the person of that number who said the same at the same time, or else the first that there is."""
    whole: dict[str, list[Vote]] = {}
    for vote in among:
        number, dot, _ = vote.by.partition(".")
        if dot:
            whole.setdefault(number, []).append(vote)

    def person(vote: Vote) -> Vote:
        same = whole.get(vote.by)
        if not same:
            return vote
        return replace(vote, by=min(same, key=lambda one: ((one.label, one.at) != (vote.label, vote.at), one.by)).by)

    return [person(vote) for vote in votes]


def pooled(votes: Iterable[Vote]) -> list[Vote]:
    """One vote a person, the last, and all that do not say whose they are."""
    found = sorted(votes, key=lambda vote: (vote.at, vote.by, vote.label))
    return [*{vote.by: vote for vote in found if vote.by}.values(), *(vote for vote in found if not vote.by)]


def taken(clip: Mapping[str, Any]) -> list[Vote]:
    """The votes on a clip of a manifest that imports have taken."""
    return [Vote(**({"label": one} if isinstance(one, str) else one)) for one in clip.get("taken", ())]


def remembered(votes: Iterable[Vote]) -> list[Label | dict[str, str]]:
    """Votes as a manifest holds them."""
    return [asdict(vote) if vote.by else vote.label for vote in votes]


def unseen(votes: Iterable[Vote], known: Iterable[Vote]) -> list[Vote]:
    """Those of `votes` that are not among `known`: of people not heard of yet, or who have changed their mind since.

    Of votes that do not say whose they are, each label was seen as often as an import has brought it at once.
    """
    last: dict[str, Vote] = {}
    nameless: Counter[Label] = Counter()
    for vote in known:
        if vote.by:
            last[vote.by] = vote
        else:
            nameless[vote.label] += 1
    found = []
    for vote in votes:
        if before := last.get(vote.by):
            if vote.label != before.label and vote.at > before.at:
                found.append(vote)
        elif nameless[vote.label]:
            nameless[vote.label] -= 1
        else:
            found.append(vote)
    return found


def together(known: Iterable[Vote], votes: Iterable[Vote]) -> list[Vote]:
    """What is known after an import of `votes`."""
    everything = [*(known := list(known)), *(votes := list(votes))]
    known, votes = identified(known, everything), identified(votes, everything)
    before, brought = (Counter(vote.label for vote in some if not vote.by) for some in (known, votes))
    for vote in pooled(votes):
        if vote.by and vote.by not in {one.by for one in known}:  # one of those who had no name has one now
            before -= Counter([vote.label if before[vote.label] else next(before.elements(), vote.label)])
    named = [vote for vote in pooled([*known, *votes]) if vote.by]
    return [*(Vote(label) for label in sorted((before | brought).elements())), *named]
