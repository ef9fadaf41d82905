package manifest

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestHostileDocuments: nothing of the greatest size that is allowed keeps the
// parser busy for long. The limit is many times what is measured.
func TestHostileDocuments(t *testing.T) {
	fill := func(s string) string { return strings.Repeat(s, (MaxBytes-len(head))/len(s)) }
	numbered := func(format string) string {
		var b strings.Builder
		for i := 0; b.Len() < MaxBytes-len(head)-40; i++ {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	stairs := func(step string) string {
		var b strings.Builder
		for i := 0; b.Len() < MaxBytes-len(head)-5000; i++ {
			b.WriteString(strings.Repeat(step, i%1500) + "a:\n")
		}
		return b.String()
	}
	for name, text := range map[string]string{
		"comments":         fill("#\n"),
		"short comments":   "a:\n" + fill(" # x\n"),
		"comments of keys": numbered("# c\nk%d: v\n"),
		"empty items":      "commands:\n" + fill("- \n"),
		"flow":             "x: [" + fill("a,") + "]",
		"flow maps":        "x: [" + fill("{},") + "]",
		"keys":             numbered("k%d: v\n"),
		"same keys":        fill("a: b\n"),
		"question marks":   fill("? a\n"),
		"anchors":          numbered("k%d: &a x\n"),
		"aliases":          "a: &a x\n" + numbered("k%d: *a\n"),
		"documents":        fill("---\n"),
		"quotes":           "a: \"" + fill(`\"`),
		"open quotes":      fill("'\n"),
		"stairs":           stairs(" "),
		"options":          "config:\n" + numbered("  o%d: {type: int}\n"),
		"files":            "files:\n" + numbered("  f%d: {}\n"),
		"long directories": "files:\n" + fill("  "+strings.Repeat("a/", 200)+"x: {}\n"),
		"patterns":         "config:\n" + numbered(`  o%d: {type: string, pattern: "(a|b|c|d|e|f){100}"}`+"\n"),
		"hosts":            "permissions:\n  network: [" + fill("'a:1',") + "]",
		"folded":           "description: >\n" + fill("  a\n"),
		"tabs":             fill("\t"),
		"colons":           fill("a:"),
		"brackets in text": fill("a: 'x]x[x'\n"),
		"percent":          fill("%YAML 1.1\n"),
		"tags":             numbered("k%d: !x y\n"),
		"words":            "commands:\n- name: x\n  args: {complete: words, words: [" + numbered("w%d,") + "]}\n",
		"flags":            "commands:\n- name: x\n  summary: x\n  flags:\n" + numbered("  - {name: f%d}\n"),
		"licence":          "licence: " + fill("("),
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.HasPrefix(text, "licence") {
				text = head + text
			}
			began := time.Now()
			_, err := Parse([]byte(text))
			if err == nil {
				t.Error("taken for a manifest")
			}
			options := Options{{Name: "a", Type: TypeList, Items: &Option{Type: TypeString, Pattern: "(a|b|c|d|e|f){100}$"}}}
			options.Validate([]byte(text))
			t.Logf("%s", time.Since(began))
			if took := time.Since(began); took > time.Minute {
				t.Errorf("took %s", took)
			}
		})
	}
}
