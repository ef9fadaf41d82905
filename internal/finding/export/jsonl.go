package export

import (
	"bufio"
	"encoding/json"
	"io"
)

// JSONLines writes one JSON object a line for each record. Subject and evidence
// keep all their bytes; see finding.Finding.
func JSONLines(w io.Writer, records Records) error {
	buf := bufio.NewWriter(w)
	enc := json.NewEncoder(buf)
	for r := range records {
		if err := enc.Encode(r); err != nil {
			return err
		}
	}
	return buf.Flush()
}
