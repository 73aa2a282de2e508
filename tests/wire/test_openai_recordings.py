"""Every recorded answer of a provider that speaks OpenAI's chat completions, through the whole gateway.

What has to come out stands in the recordings' oracle: what the provider's own SDK reads from the same bytes.
"""

import pytest

from tests.wire import checks
from tests.wire.conformance import Line
from tests.wire.recordings import Case, recorded

pytestmark = pytest.mark.asyncio(loop_scope="session")

CASES = recorded()
ANSWERS = [case for case in CASES if case.ok]
STREAMS = [case for case in ANSWERS if case.streamed]
DOCUMENTS = [case for case in ANSWERS if not case.streamed]
BROKEN = [case for case in CASES if not case.ok and case.status == 200]
REFUSED_HERE = [case for case in CASES if case.request is not None and not case.request.get("messages")]
"""Requests without a message are refused by the gateway itself: a mistake on which all agree costs nothing."""
REFUSALS = [case for case in CASES if case.status != 200 and case not in REFUSED_HERE]
REQUESTS = [case for case in CASES if case.request is not None and case not in REFUSED_HERE]

PIECES = (1, 7)
PARTS = (0.3, 0.5, 0.9)


def each(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case.id for case in cases])


@each(REQUESTS)
async def test_request(line: Line, case: Case) -> None:
    """What arrives at the provider is what the application sent, but for the model's name and the wish for usage."""
    await checks.same_request_arrives(line, case)


@each(ANSWERS)
async def test_answer(line: Line, case: Case) -> None:
    """The recorded request gets an answer in which the SDK reads what the oracle read."""
    await checks.reads_as_expected(line, case)


@each(ANSWERS)
async def test_answer_in_the_other_mode(line: Line, case: Case) -> None:
    """The same, from a provider that does not heed whether it was asked for a stream."""
    await checks.reads_the_same_in_the_other_mode(line, case)


@pytest.mark.parametrize("piece", PIECES)
@each(STREAMS)
async def test_stream_in_pieces(line: Line, case: Case, piece: int) -> None:
    """It is the same however the stream is cut into pieces, and usage is told to who asks for it."""
    await checks.reads_the_same_in_pieces(line, case, piece)


@each([*STREAMS, *BROKEN])
async def test_any_chunking(case: Case) -> None:
    """The decoder returns the same bytes at any chunking."""
    checks.same_at_any_chunking(checks.wire_of(case), case)


@each([case for case in CASES if case.body])
async def test_damage_within_any_chunking(case: Case) -> None:
    """Whatever becomes of its bytes, the decoder decodes or refuses, and does nothing else."""
    checks.survives_damage(checks.wire_of(case), case)


@each(REFUSALS)
async def test_refusal(line: Line, case: Case) -> None:
    """A provider's refusal has the status and the SDK's exception that say whose fault it is."""
    await checks.fails_as_expected(line, case)


@each(REFUSED_HERE)
async def test_refused_here(line: Line, case: Case) -> None:
    """What every provider would refuse is refused at once, with the same exception."""
    heard = await line.ask_as_recorded(case)
    assert type(heard.error).__name__ == case.expected["error"]
    assert heard.asked == []
    assert heard.row is None


@pytest.mark.parametrize("piece", [0, *PIECES])
@each(BROKEN)
async def test_error_in_a_stream(line: Line, case: Case, piece: int) -> None:
    """An error that comes after the status has left raises in the application."""
    await checks.breaks_off_as_expected(line, case, piece)


@pytest.mark.parametrize("part", PARTS)
@each(STREAMS)
async def test_dropped_stream(line: Line, case: Case, part: float) -> None:
    """A stream whose connection breaks never looks whole, unless its answer was."""
    await checks.cut_stream_is_told(line, case, part)


@each(STREAMS)
async def test_ended_stream(line: Line, case: Case) -> None:
    """A stream that ends in order, but half-way, never looks whole either."""
    await checks.cut_stream_is_told(line, case, 0.5, ended=True)


@each(DOCUMENTS)
async def test_dropped_document(line: Line, case: Case) -> None:
    """Half a JSON answer is an error."""
    await checks.cut_document_is_told(line, case)
