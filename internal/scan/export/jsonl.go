package export

import (
	"bufio"
	"encoding/json"
	"io"
	"time"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/finding/export"
	"github.com/mobileops/mobileops/internal/scan/ledger"
	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// lineSchema names the records of JSONLines.
const lineSchema = "mobileops.scan.item/v1"

// jsonItem is the record of an item: the item as the ledger has it, and what this
// scan adds.
type jsonItem struct {
	Schema string `json:"schema"`
	*ledger.Item
	Change  string    `json:"change,omitempty"`
	Due     time.Time `json:"due,omitzero"`
	Overdue bool      `json:"overdue,omitempty"`
	// SubjectB64 has the exact bytes of a subject that is no UTF-8.
	SubjectB64 []byte `json:"subject_b64,omitempty"`
}

// jsonProblem is the record of something that could not be looked at.
type jsonProblem struct {
	Schema  string            `json:"schema"`
	Asset   string            `json:"asset"`
	Problem *protocol.Problem `json:"problem"`
	PathB64 []byte            `json:"path_b64,omitempty"`
}

// JSONLines writes one JSON object a line for each item, in order of urgency, and
// then one for each thing that could not be looked at. Characters that do not
// show, or that a terminal would obey, are written as \uHHHH.
func JSONLines(w io.Writer, d *Document) error {
	buf := bufio.NewWriterSize(w, 64<<10)
	write := func(v any) error {
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		_, err = buf.Write(append(export.VisibleJSON(b), '\n'))
		return err
	}
	exact := func(s string) []byte {
		if utf8.ValidString(s) {
			return nil
		}
		return []byte(s)
	}
	for _, e := range d.entries() {
		if err := write(&jsonItem{lineSchema, e.Item, e.change, e.due, e.overdue, exact(e.Subject)}); err != nil {
			return err
		}
	}
	list := d.problems()
	for i := range list {
		if err := write(&jsonProblem{lineSchema, d.Asset.ID, &list[i], exact(list[i].Path)}); err != nil {
			return err
		}
	}
	return buf.Flush()
}
