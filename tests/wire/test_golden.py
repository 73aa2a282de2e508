"""The project's own answers, one for each habit of a provider, through the whole gateway.

Each stands in `golden/` as it comes over the wire; beside it, how it is to be read and why. Those of a provider with
a wire of its own stand in a folder of its name, and say, too, what the request becomes there.
"""

from importlib.util import find_spec

import pytest
from botocore.validate import ParamValidator

from tests.providers.bedrock_asking import INPUT
from tests.wire import checks
from tests.wire.conformance import Line
from tests.wire.gemini_requests import fits_the_sdk
from tests.wire.recordings import Case, golden

pytestmark = pytest.mark.asyncio(loop_scope="session")

CASES = golden()
ANSWERS = [case for case in CASES if case.ok]
FAILURES = [case for case in CASES if not case.ok]
STREAMS = [case for case in ANSWERS if case.streamed]
DOCUMENTS = [case for case in ANSWERS if not case.streamed]
HEEDLESS = [case for case in ANSWERS if not (case.streamed and case.row in checks.OWN_WIRES)]
"""Answers that may come to whoever asked for the other kind; those with a wire of their own stream when asked to."""

PIECES = (1, 7)
PARTS = (0.3, 0.6, 0.95)


def each(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case.id for case in cases])


@each(ANSWERS)
async def test_request(line: Line, case: Case) -> None:
    """What arrives at the provider is what the application sent, or what is written down as the same in its words."""
    await checks.same_request_arrives(line, case)


@each([case for case in ANSWERS if case.row == "bedrock"])
async def test_request_is_valid_for_bedrock(case: Case) -> None:
    """botocore's model of the service knows every field of what is sent."""
    report = ParamValidator().validate({**case.expected["sent"], "modelId": case.model}, INPUT)
    assert not report.has_errors(), report.generate_report()


if find_spec("google") and find_spec("google.genai"):

    @each([case for case in ANSWERS if case.row in ("gemini", "vertex")])
    async def test_request_is_valid_for_gemini(case: Case) -> None:
        """Google's SDK knows every field within what is sent; those of its top level it names otherwise."""
        fits_the_sdk(case.expected["sent"])


if find_spec("anthropic"):
    from tests.wire.anthropic_sdk import is_valid

    @each([case for case in ANSWERS if case.row == "anthropic"])
    async def test_request_is_valid_for_anthropic(case: Case) -> None:
        """Anthropic's SDK knows every field of what is sent."""
        assert is_valid(case.expected["sent"])


@each(ANSWERS)
async def test_answer(line: Line, case: Case) -> None:
    """The SDK reads what is written beside the answer."""
    await checks.reads_as_expected(line, case)


@each(HEEDLESS)
async def test_answer_in_the_other_mode(line: Line, case: Case) -> None:
    """The same, from a provider that does not heed whether it was asked for a stream."""
    await checks.reads_the_same_in_the_other_mode(line, case)


@pytest.mark.parametrize("piece", PIECES)
@each(STREAMS)
async def test_stream_in_pieces(line: Line, case: Case, piece: int) -> None:
    """It is the same however the stream is cut into pieces, and usage is told to who asks for it."""
    await checks.reads_the_same_in_pieces(line, case, piece)


@each([case for case in CASES if case.streamed])
async def test_any_chunking(case: Case) -> None:
    """The decoder returns the same bytes at any chunking."""
    checks.same_at_any_chunking(checks.wire_of(case), case)


@each(STREAMS)
async def test_mutated_stream(case: Case) -> None:
    """Whatever became of it on its way, it is told or it is an error, the same in pieces."""
    checks.survives_damage(checks.wire_of(case), case)


@each([case for case in STREAMS if case.row == "bedrock"])
async def test_flipped_bit(case: Case) -> None:
    """One bit, wherever it is, breaks a stream of frames: each has checksums."""
    checks.breaks_by_a_bit(checks.wire_of(case), case)


@pytest.mark.parametrize("piece", [0, *PIECES])
@each(FAILURES)
async def test_failure(line: Line, case: Case, piece: int) -> None:
    """What is no answer is an error with the right word, in the application and in the ledger."""
    await checks.fails_as_told(line, case, piece)


@pytest.mark.parametrize("part", PARTS)
@each(STREAMS)
async def test_dropped_stream(line: Line, case: Case, part: float) -> None:
    """A stream whose connection breaks never looks whole, unless its answer was."""
    await checks.cut_stream_is_told(line, case, part)


@pytest.mark.parametrize("part", PARTS)
@each(STREAMS)
async def test_ended_stream(line: Line, case: Case, part: float) -> None:
    """A stream that ends in order, but too early, never looks whole either."""
    await checks.cut_stream_is_told(line, case, part, ended=True)


@each(DOCUMENTS)
async def test_dropped_document(line: Line, case: Case) -> None:
    """Half a JSON answer is an error."""
    await checks.cut_document_is_told(line, case)
