"""Why: Gemini's own language says what its OpenAI layer leaves out: thought signatures, PDFs, audio, true usage.

Fields that have no place there are refused by name. Whatever OpenAI has no field for goes into a top-level object
`gemini` (or `vertex`), which is merged into the request: `{"gemini": {"safetySettings": [...]}}`; its objects are
merged with ours, its `tools` are added to ours. Its field `lenient` is ours (true: drop what cannot be said).

Sources: https://ai.google.dev/api/generate-content,
https://docs.cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference
"""

from .wire import GeminiWire

__all__ = ["GeminiWire"]
