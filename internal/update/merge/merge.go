// Package merge brings together what an admin changed in a configuration file
// and what a new version of the package changed in it.
//
// There are three versions of a file: base, as the package delivered it last;
// mine, as it lies on this host; theirs, as the new package delivers it. Where
// only one side differs from base, that side wins. Where both do, Merge does
// for lines what git merge-file does: each side is aligned with base by
// Myers' algorithm, changes of one side alone are taken, the same change on
// both sides is taken once, and changes that overlap or touch are a conflict.
// Decide adds what a file is beside its bytes: whether it is there at all, its
// mode, and whether it is a symbolic link.
//
// Invariants:
//   - A conflict never loses the local file: its content is mine, untouched.
//     The caller lays theirs beside it, as NAME.mobileops-new.
//   - A result is either one of the three versions, byte for byte, or a
//     conflict, or is made of whole lines of mine and theirs. Line ends are
//     part of a line, so CRLF and a missing last newline stay as they are.
//   - What cannot be judged is a conflict: binary files, files beyond MaxSize
//     or MaxLines, files that differ so much that aligning them takes too
//     long, JSON and YAML that was well formed on both sides and is not after
//     the merge.
//
// Where the result is not that of git merge-file: git gives up exactness for
// lines that occur very often and for very different files, and may then align
// them in another way; it calls it a conflict when both sides, in steps of
// their own, removed the same lines.
//
// Sources: E. Myers, "An O(ND) Difference Algorithm and Its Variations", 1986;
// S. Khanna et al., "A Formal Investigation of Diff3", 2007; git-merge-file(1).
package merge

import (
	"bytes"
)

// Limits beyond which files are not merged. Configuration is smaller.
const (
	MaxSize  = 1 << 20 // bytes of one version
	MaxLines = 50_000  // lines of one version
	maxSteps = 20_000_000
)

// Outcome says what became of a file.
type Outcome string

// The outcomes.
const (
	Unchanged  Outcome = "unchanged"   // what is here is what is wanted
	TookTheirs Outcome = "took-theirs" // the new version, since nobody changed the file here
	KeptMine   Outcome = "kept-mine"   // the local version, since the package did not change the file
	Merged     Outcome = "merged"      // changes of both sides
	Conflicted Outcome = "conflict"    // the local version, and somebody has to look
)

// Lines are some lines of one version of a file.
type Lines struct {
	First int `json:"first"` // counted from 1; when Count is 0, the line before which there are none
	Count int `json:"count"`
}

// Conflict is one place that both sides changed in different ways.
type Conflict struct {
	Base   Lines `json:"base"`
	Mine   Lines `json:"mine"`
	Theirs Lines `json:"theirs"`
}

// Result is what came out of a merge.
type Result struct {
	Content   []byte // never to be written to: may be one of the versions itself
	Clean     bool   // false for Conflicted alone
	Outcome   Outcome
	Conflicts []Conflict // the places, when the lines could be compared
	Reason    string     // why there is a conflict, for people; empty when Clean
}

// Merge merges the changes between base and mine with those between base and
// theirs. It takes time and memory within bounds whatever it is given.
func Merge(base, mine, theirs []byte) Result {
	switch {
	case bytes.Equal(mine, theirs):
		return Result{Content: mine, Clean: true, Outcome: Unchanged}
	case bytes.Equal(base, mine):
		return Result{Content: theirs, Clean: true, Outcome: TookTheirs}
	case bytes.Equal(base, theirs):
		return Result{Content: mine, Clean: true, Outcome: KeptMine}
	}
	for _, version := range [][]byte{base, mine, theirs} {
		switch {
		case len(version) > MaxSize:
			return conflict(mine, "changed on both sides, and too large to be merged")
		case bytes.IndexByte(version, 0) >= 0:
			return conflict(mine, "changed on both sides, and binary")
		case bytes.Count(version, []byte{'\n'}) >= MaxLines:
			return conflict(mine, "changed on both sides, and of too many lines to be merged")
		}
	}
	text := newText(base, mine, theirs)
	steps := maxSteps
	ours, ok := align(text.base.ids, text.mine.ids, text.distinct, &steps)
	if !ok {
		return conflict(mine, "changed on both sides, and too different to be merged")
	}
	other, ok := align(text.base.ids, text.theirs.ids, text.distinct, &steps)
	if !ok {
		return conflict(mine, "changed on both sides, and too different to be merged")
	}
	hunks := combine(text, ours, other)
	if places := conflicts(text, hunks); len(places) > 0 {
		r := conflict(mine, "changed on both sides in the same place")
		r.Conflicts = places
		return r
	}
	content := render(text, hunks)
	switch {
	case bytes.Equal(content, mine):
		return Result{Content: mine, Clean: true, Outcome: KeptMine}
	case bytes.Equal(content, theirs):
		return Result{Content: theirs, Clean: true, Outcome: TookTheirs}
	}
	return Result{Content: content, Clean: true, Outcome: Merged}
}

// conflict keeps what is here.
func conflict(mine []byte, reason string) Result {
	return Result{Content: mine, Outcome: Conflicted, Reason: reason}
}
