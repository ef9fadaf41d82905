package export

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// JSONLines writes one JSON object a line for each record. Subject and evidence
// keep all their bytes; see finding.Finding. Characters that do not show, or
// that a terminal would obey, are written as \uHHHH.
func JSONLines(w io.Writer, records Records) error {
	buf := bufio.NewWriter(w)
	for r := range records {
		b, err := json.Marshal(r)
		if err != nil {
			return err
		}
		if _, err := buf.Write(append(VisibleJSON(b), '\n')); err != nil {
			return err
		}
	}
	return buf.Flush()
}

// VisibleJSON is Visible for JSON: the same value, without a character that
// could mislead who looks at it. encoding/json escapes those below U+0020.
func VisibleJSON(b []byte) []byte {
	var out []byte
	done := 0 // b[:done] is in out
	for i := 0; i < len(b); {
		r, size := utf8.DecodeRune(b[i:])
		if !strconv.IsPrint(r) {
			out = append(out, b[done:i]...)
			if high, low := utf16.EncodeRune(r); high != utf8.RuneError {
				out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
			} else {
				out = fmt.Appendf(out, `\u%04x`, r)
			}
			done = i + size
		}
		i += size
	}
	return append(out, b[done:]...)
}
