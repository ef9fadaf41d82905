package merge

import "bytes"

// lines is one version of a file: its lines with their ends, and for each the
// number that equal lines of all versions have in common.
type lines struct {
	raw [][]byte
	ids []int32
}

// text is the three versions of a file.
type text struct {
	base, mine, theirs lines
	distinct           int // ids are below
}

func newText(base, mine, theirs []byte) *text {
	seen := map[string]int32{}
	split := func(data []byte) lines {
		var l lines
		for len(data) > 0 {
			end := bytes.IndexByte(data, '\n') + 1
			if end == 0 {
				end = len(data)
			}
			id, ok := seen[string(data[:end])]
			if !ok {
				id = int32(len(seen))
				seen[string(data[:end])] = id
			}
			l.raw = append(l.raw, data[:end])
			l.ids = append(l.ids, id)
			data = data[end:]
		}
		return l
	}
	t := &text{base: split(base), mine: split(mine), theirs: split(theirs)}
	t.distinct = len(seen)
	return t
}
