package classify

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"flag"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	classifier "github.com/google/licenseclassifier/v2"
	"github.com/google/licenseclassifier/v2/assets"
)

var update = flag.Bool("update", false, "write corpus.gz anew from the classifier's module")

// texts returns the texts of the classifier's corpus, by "Header/MIT/header.txt".
func texts(t testing.TB) map[string][]byte {
	t.Helper()
	cmd := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/google/licenseclassifier/v2")
	out, err := cmd.Output()
	dir := strings.TrimSpace(string(out))
	if err != nil || dir == "" {
		t.Skipf("the source of the licence classifier isn't here, so its corpus can't be compared: %v", err)
	}
	all := map[string][]byte{}
	root := filepath.Join(dir, "assets")
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.Count(strings.TrimPrefix(p, root), "/") != 3 {
			return err
		}
		name, _ := filepath.Rel(root, p)
		all[name], err = assets.ReadLicenseFile(filepath.ToSlash(name))
		return err
	})
	if err != nil || len(all) < 400 {
		t.Fatalf("%d texts, %v", len(all), err)
	}
	return all
}

// markers are words that the classifier drops at the beginning of a line when a dot
// follows: whether they are there can't be relied upon.
var markers = strings.Fields("a b c d e f g h i j k l m n o p q r ii iii iv v vi vii viii ix xi xii xiii xiv xv")

// makeIndex counts the words of the texts with the classifier's own tokenizer.
func makeIndex(all map[string][]byte) index {
	var x index
	numbers := map[string]uint32{}
	var bags []map[string]int
	for _, name := range slices.Sorted(maps.Keys(all)) {
		bag, free := map[string]int{}, map[string]bool{}
		for word := range strings.FieldsSeq(string(classifier.NewClassifier(threshold).Normalize(all[name]))) {
			r, _ := utf8.DecodeRuneInString(word)
			word = string(sameWord(plainHTTP([]byte(strings.ToLower(word)))))
			if unicode.IsDigit(r) || slices.Contains(markers, word) {
				free[word] = true
				continue
			}
			bag[word]++
		}
		bags = append(bags, bag)
		x.texts = append(x.texts, indexText{distinct: len(bag) + len(free), free: len(free)})
		for word := range bag {
			numbers[word] = 0
		}
	}
	x.words = slices.Sorted(maps.Keys(numbers))
	for i, word := range x.words {
		numbers[word] = uint32(i)
	}
	for i, bag := range bags {
		x.texts[i].words = map[uint32]int{}
		for word, n := range bag {
			x.texts[i].words[numbers[word]] = n
		}
	}
	return x
}

func encodeIndex(x index) []byte {
	var b []byte
	number := func(n int) { b = binary.AppendUvarint(b, uint64(n)) }
	number(len(x.words))
	for _, w := range x.words {
		number(len(w))
		b = append(b, w...)
	}
	number(len(x.texts))
	for _, t := range x.texts {
		number(t.distinct)
		number(t.free)
		number(len(t.words))
		last := 0
		for _, w := range slices.Sorted(maps.Keys(t.words)) {
			number(int(w) - last)
			number(t.words[w])
			last = int(w)
		}
	}
	return b
}

// The index that is embedded is that of the classifier which is linked.
func TestCorpus(t *testing.T) {
	want := encodeIndex(makeIndex(texts(t)))
	if *update {
		var b bytes.Buffer
		z, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
		z.Write(want)
		z.Close()
		if err := os.WriteFile("corpus.gz", b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Logf("corpus.gz: %d bytes of %d", b.Len(), len(want))
		return
	}
	z, err := gzip.NewReader(bytes.NewReader(corpus))
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if _, err := got.ReadFrom(z); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Fatal("corpus.gz is not the index of the classifier's texts; write it with: go test ./internal/scan/license/classify -run TestCorpus -update")
	}
}

// Every text passes its own sieve, and loses it when a third of it is missing.
func TestSieveTexts(t *testing.T) {
	s, err := NewSieve()
	if err != nil {
		t.Fatal(err)
	}
	all := texts(t)
	if len(s.texts) != len(all) {
		t.Fatalf("%d texts, want %d", len(s.texts), len(all))
	}
	for i, name := range slices.Sorted(maps.Keys(all)) {
		if !s.May(all[name]) {
			t.Errorf("%s does not pass", name)
		}
		if d := s.texts[i].distinct; d == 0 || s.texts[i].free*10 > d*8 {
			t.Errorf("%s: %d of %d words are free, so the sieve lets everything pass", name, s.texts[i].free, d)
		}
	}
	for _, none := range []string{"", "hello", "package main\n\nfunc main() { println(1) }\n", strings.Repeat("the quick brown fox ", 1000)} {
		if s.May([]byte(none)) {
			t.Errorf("%.40q passes", none)
		}
	}
}
