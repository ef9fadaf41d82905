package pack

import (
	"errors"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/archive/rawtar"
	"github.com/mobileops/mobileops/internal/failure"
)

// attack is a package that is refused.
type attack struct {
	what    string
	code    archive.Code
	entries []rawtar.Entry
}

func list(entries ...rawtar.Entry) []rawtar.Entry { return entries }

// attacks are refused for what a package of an update must not have, and some
// for what no archive may: the tests of package archive have all of these.
func attacks() []attack {
	return []attack{
		{what: "parent", code: archive.CodeTraversal, entries: list(manifestEntry(""), rawtar.File("../a"))},
		{what: "parent in place of the manifest", code: archive.CodeTraversal, entries: list(rawtar.File("../.mobileops/package.yaml"))},
		{what: "hard link", code: archive.CodeHardLink, entries: list(rawtar.File("a"), rawtar.Entry{Name: "b", Type: '1', Link: "a"})},
		{what: "device", code: archive.CodeDevice, entries: list(rawtar.Entry{Name: "a", Type: '3'})},
		{what: "setuid", code: archive.CodeSetID, entries: list(rawtar.With(rawtar.File("a"), rawtar.Moded(0o4755)))},
		{what: "setgid of a directory", code: archive.CodeSetID, entries: list(rawtar.With(rawtar.Dir("a"), rawtar.Moded(0o2755)))},
		{what: "setgid of the tree", code: archive.CodeSetID, entries: list(rawtar.With(rawtar.Dir("./"), rawtar.Moded(0o2755)))},
		{what: "link to what is not installed", code: archive.CodeSymlinkEscape, entries: list(rawtar.Symlink("bin/a", "../.mobileops/hooks/before"))},
		{what: "case of .mobileops", code: archive.CodeCaseClash, entries: list(rawtar.File(".MobileOps/hooks/x"))},
		{what: "another mode than listed", code: archive.CodeSetID, entries: list(manifestEntry("setuid: [{path: a, mode: \"4755\"}]\n"), rawtar.With(rawtar.File("a"), rawtar.Moded(0o6755)))},
		{what: "listed and without bits", code: archive.CodeSetID, entries: list(manifestEntry("setuid: [{path: a, mode: \"4755\"}]\n"), rawtar.With(rawtar.File("a"), rawtar.Moded(0o755)))},
		{what: "listed and a link", code: archive.CodeSetID, entries: list(manifestEntry("setuid: [{path: a, mode: \"4755\"}]\n"), rawtar.Symlink("a", "b"))},
		{what: "setuid hook", code: archive.CodeSetID, entries: list(rawtar.With(rawtar.File(".mobileops/hooks/a"), rawtar.Moded(0o4755)))},
		{what: "a link in .mobileops", code: archive.CodeType, entries: list(rawtar.Symlink(".mobileops/hooks/a", "b"))},
		{what: ".mobileops a link", code: archive.CodeType, entries: list(rawtar.Symlink(".mobileops", "b"))},
		{what: ".mobileops a file", code: archive.CodeFileOverDir, entries: list(rawtar.File(".mobileops"))},
		{what: "manifest not first", code: archive.CodeManifest, entries: list(rawtar.File("a"), manifestEntry(""))},
		{what: "manifest after a hook", code: archive.CodeManifest, entries: list(rawtar.File(".mobileops/hooks/x"), manifestEntry(""))},
		{what: "manifest twice", code: archive.CodeDuplicate, entries: list(manifestEntry(""), manifestEntry(""))},
		{what: "manifest a directory", code: archive.CodeManifest, entries: list(rawtar.Dir(ManifestName))},
		{what: "manifest a link", code: archive.CodeType, entries: list(rawtar.Symlink(ManifestName, "../a"))},
		{what: "unknown key", code: archive.CodeManifest, entries: list(manifestEntry("colour: red\n"))},
		{what: "manifest too large", code: archive.CodeManifest, entries: list(manifestEntry("#" + strings.Repeat("x", 300<<10)))},
		{what: "setuid file that is not there", code: archive.CodeManifest, entries: list(manifestEntry("setuid: [{path: a, mode: \"4755\"}]\n"))},
		{what: "hook that is not there", code: archive.CodeManifest, entries: list(manifestEntry("hooks: {before: {command: [.mobileops/hooks/x]}}\n"))},
		{what: "hook that is no program", code: archive.CodeManifest, entries: list(manifestEntry("hooks: {before: {command: [.mobileops/hooks/x]}}\n"), rawtar.File(".mobileops/hooks/x"))},
		{what: "health check that is not there", code: archive.CodeManifest, entries: list(manifestEntry("health: {command: [.mobileops/hooks/x]}\n"))},
		{what: "data a link", code: CodeDataPath, entries: list(manifestEntry("data: [var]\n"), rawtar.Symlink("var", "etc"))},
		{what: "data a file", code: CodeDataPath, entries: list(manifestEntry("data: [var]\n"), rawtar.File("var"))},
		{what: "data beneath a link", code: CodeDataPath, entries: list(manifestEntry("data: [var/lib]\n"), rawtar.Symlink("var", "etc"))},
		{what: "link out of data", code: CodeDataPath, entries: list(manifestEntry("data: [var]\n"), rawtar.Symlink("var/a", "../etc/b"))},
	}
}

func TestAttacksAreRefused(t *testing.T) {
	for _, a := range attacks() {
		for how, data := range map[string][]byte{"gzip": rawtar.Gzip(rawtar.Archive(a.entries...)), "zstd": rawtar.Zstd(rawtar.Archive(a.entries...))} {
			_, _, err := readPackage(t, data, archive.Limits{})
			if got := codeOf(err); got != a.code {
				t.Errorf("%s %s: %s, want %s: %v", a.what, how, got, a.code, err)
				continue
			}
			if k := failure.KindOf(err); k != failure.Untrustworthy || k.Status() != 5 {
				t.Errorf("%s: kind %v", a.what, k)
			}
			if text := err.Error(); !strings.Contains(text, string(a.code)) || !strings.Contains(text, "(") {
				t.Errorf("%s: %q", a.what, text)
			}
		}
	}
}

// TestErrorsSayWhatToDo: where a package of an update has more to say than any
// archive.
func TestErrorsSayWhatToDo(t *testing.T) {
	_, _, err := readPackage(t, rawtar.Gzip(rawtar.Archive(manifestEntry("name: a\ncolour: red\n"))), archive.Limits{})
	var e *archive.Error
	if !errors.As(err, &e) || e.Offset != 3 {
		t.Fatalf("%+v", err)
	}
	if want := `package refused: manifest: ".mobileops/package.yaml": line 3: field colour not found (correct .mobileops/package.yaml, or ask the publisher to)`; err.Error() != want {
		t.Errorf("%s\nwant\n%s", err, want)
	}
	for _, entry := range []rawtar.Entry{rawtar.With(rawtar.File("a"), rawtar.Moded(0o4755)), rawtar.With(rawtar.Dir("./"), rawtar.Moded(0o2755))} {
		_, _, err := readPackage(t, rawtar.Gzip(rawtar.Archive(entry)), archive.Limits{})
		if err == nil || !strings.Contains(err.Error(), "(the manifest's setuid list names such files and their exact modes; ask the publisher to build it again)") {
			t.Errorf("%v", err)
		}
	}
	_, _, err = readPackage(t, rawtar.Gzip(rawtar.Archive(rawtar.File("a"), manifestEntry(""))), archive.Limits{})
	if want := `package refused: manifest: ".mobileops/package.yaml": it is not the first entry: name it first when calling tar (correct .mobileops/package.yaml, or ask the publisher to)`; err == nil || err.Error() != want {
		t.Errorf("%v\nwant\n%s", err, want)
	}
}

// TestEveryCutIsRefused cuts small packages at every byte.
func TestEveryCutIsRefused(t *testing.T) {
	unpacked := rawtar.Archive(manifestEntry("name: platform\n"), rawtar.Dir("bin/"), rawtar.File("bin/a"), rawtar.Symlink("bin/b", "a"))
	for name, data := range map[string][]byte{"gzip": rawtar.Gzip(unpacked), "zstd": rawtar.Zstd(unpacked), "zstd without checksum": rawtar.Zstd(unpacked, zstd.WithEncoderCRC(false))} {
		if _, all, err := readPackage(t, data, archive.Limits{}); err != nil || len(all) != 3 {
			t.Fatalf("%s: %v, %d entries", name, err, len(all))
		}
		for n := range data {
			if _, _, err := readPackage(t, data[:n], archive.Limits{}); codeOf(err) != archive.CodeTruncated {
				t.Errorf("%s: cut at %d of %d: %v", name, n, len(data), err)
			}
		}
	}
	// The archive itself, packed as it should be.
	for n := 0; n < len(unpacked); n += 7 {
		if _, _, err := readPackage(t, rawtar.Gzip(unpacked[:n]), archive.Limits{}); codeOf(err) != archive.CodeTruncated {
			t.Errorf("archive cut at %d of %d: %v", n, len(unpacked), err)
		}
	}
}
