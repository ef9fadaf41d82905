package integrity

import (
	"bytes"
	"slices"

	"github.com/mobileops/mobileops/internal/integrity/baseline"
	"github.com/mobileops/mobileops/internal/integrity/policy"
	"github.com/mobileops/mobileops/pkg/filehash"
)

// lost is a file of the baseline that is no longer in its place, and fresh one
// that is not in the baseline: together they may be a move.
type lost struct {
	change int // index of its removal in the report's changes
	rec    baseline.Record
}

type fresh struct {
	change int // index of its addition
	entry  filehash.Entry
	rule   *policy.Rule
}

// moveIgnores are the attributes that moving a file changes by itself.
const moveIgnores = policy.Ctime | policy.Btime | policy.Inode

// freshOf keeps what is needed of an entry beyond its batch.
func freshOf(change int, e *filehash.Entry, rule *policy.Rule) fresh {
	return fresh{change, filehash.Entry{Info: e.Info, Content: e.Content, Sum: e.Sum, Xattrs: cloneXattrs(e.Xattrs), Err: e.Err}, rule}
}

func cloneXattrs(list []filehash.Xattr) []filehash.Xattr {
	list = slices.Clone(list)
	for i := range list {
		list[i].Value = bytes.Clone(list[i].Value)
	}
	return list
}

// pairMoves makes one move of a removal and an addition of the same content.
// Of several with the same content, those with the same inode belong together.
func (c *comparison) pairMoves() {
	type inode struct {
		sum      filehash.Sum
		dev, ino uint64
	}
	byInode, bySum := map[inode][]int{}, map[filehash.Sum][]int{}
	for i := range c.gone {
		r := &c.gone[i].rec
		k := inode{r.Sum, r.Info.Dev, r.Info.Ino}
		byInode[k] = append(byInode[k], i)
		bySum[r.Sum] = append(bySum[r.Sum], i)
	}
	used := make([]bool, len(c.gone))
	drop := map[int]bool{}
	var rest []*fresh
	for i := range c.fresh {
		f := &c.fresh[i]
		k := inode{f.entry.Sum, f.entry.Info.Dev, f.entry.Info.Ino}
		if same := byInode[k]; len(same) > 0 {
			byInode[k] = same[1:]
			used[same[0]] = true
			c.move(f, &c.gone[same[0]], drop)
		} else {
			rest = append(rest, f)
		}
	}
	for _, f := range rest {
		same := bySum[f.entry.Sum]
		for len(same) > 0 && used[same[0]] {
			same = same[1:]
		}
		if len(same) > 0 {
			used[same[0]] = true
			c.move(f, &c.gone[same[0]], drop)
		}
		bySum[f.entry.Sum] = same
	}
	if len(drop) == 0 {
		return
	}
	kept := c.report.Changes[:0]
	for i, ch := range c.report.Changes {
		if !drop[i] {
			kept = append(kept, ch)
		}
	}
	c.report.Changes = kept
}

// move makes f's addition a move from l, whose removal is to be dropped.
func (c *comparison) move(f *fresh, l *lost, drop map[int]bool) {
	to, was := &c.report.Changes[f.change], &c.report.Changes[l.change]
	rule := *f.rule
	rule.Attrs &^= moveIgnores
	to.Kind, to.From, to.Severity = Moved, was.Path, max(to.Severity, was.Severity)
	to.Attributes = compare(&l.rec, &f.entry, &rule)
	drop[l.change] = true
}
