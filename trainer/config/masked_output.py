"""MaskedOutput: a stream of text without the passwords and tokens that one write holds, whoever writes to it."""

from __future__ import annotations

import io

from trainer.config.masking import masked


class MaskedOutput(io.TextIOWrapper):
    """Writes to the buffer of another stream, in UTF-8. Logs, warnings and tracebacks of any thread go through it."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        stream.flush()
        self._stream = stream  # kept: its end would close the buffer
        super().__init__(
            stream.buffer,
            encoding="utf-8",
            errors="backslashreplace",
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )

    def write(self, text: str, /) -> int:
        """Write a text, masked."""
        super().write(masked(text))
        return len(text)

    def close(self) -> None:
        """Leave the buffer open, which is the other stream's."""
        if not self.buffer.closed:
            self.flush()
