package query

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand"
	"net/netip"
	"strings"
	"testing"
	"unicode"

	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/logs/match"
)

func needText(n match.Need) string {
	var clauses []string
	for _, c := range n.Clauses {
		var literals []string
		for _, l := range c {
			flags := ""
			if l.Fold {
				flags += "i"
			}
			if l.Word {
				flags += "w"
			}
			literals = append(literals, strings.TrimSuffix(string(l.Text)+"/"+flags, "/"))
		}
		clauses = append(clauses, strings.Join(literals, "|"))
	}
	text := strings.Join(clauses, " & ")
	if n.Exact {
		text += " exact"
	}
	return strings.TrimSpace(text)
}

func TestNeed(t *testing.T) {
	for _, tc := range []struct{ expr, want string }{
		{`*`, "exact"},
		{`a b`, "a & b exact"},
		{`alpha or beta`, "alpha|beta exact"},
		{`(alpha beta) or gamma`, "alpha|gamma & beta|gamma exact"},
		{`alpha -beta`, "alpha"},
		{`alpha or -beta`, ""},
		{`alpha severity>=err`, "alpha"},
		{`alpha time>=-1h`, "alpha"},
		{`user=root`, `root|\u00|726f6f74/i`},
		{`user in (root, adm*)`, `root|\u00|726f6f74/i|adm|\u00|61646d/i`},
		{`user:oo`, `oo|\u00|6f6f/i`},
		{`user="a b"`, ""},
		{`user in (root, "a b")`, ""},
		{`user!=root`, ""},
		{`user~/root/`, ""},
		{`pid=4242`, `4242|\u00`},
		{`pid>4242`, ""},
		{`addr=10.0.0.7`, `10.0.0.7/w|0a000007/i|ffff/iw`},
		{`addr=10.0.0.0/8`, ""},
		{`addr=::1`, ""},
		{`addr:10.0`, ""},
		{`host=web1`, ""},
		{`unit=ssh`, ""},
		{`program=sshd`, ""},
		{`status==500`, ""},
		{`user=root or addr=10.0.0.7`, `root|\u00|726f6f74/i|10.0.0.7/w|0a000007/i|ffff/iw`},
	} {
		if got := needText(mustParse(t, tc.expr).Need()); got != tc.want {
			t.Errorf("%s needs %s, want %s", tc.expr, got, tc.want)
		}
	}
	q := mustParse(t, `unit=ssh.service host=Web1 message:x`)
	if got := needText(q.NeedOf(func(f string) bool { return f != "message" })); got != `ssh|\u00|7373682f/i & web1/i` {
		// The hexadecimal form of a folded value is not one literal, so host gives none.
		if got != `ssh|\u00|737368/i` {
			t.Errorf("with all fields verbatim: %s", got)
		}
	}
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf("w%d", i))
	}
	if n := mustParse(t, strings.Join(many, " ")).Need(); count(n.Clauses) > maxLiterals || n.Exact || len(n.Clauses) == 0 {
		t.Errorf("a hundred words: %d literals, exact %v", count(n.Clauses), n.Exact)
	}
	if n := mustParse(t, strings.Join(many, " or ")).Need(); len(n.Clauses) != 0 {
		t.Errorf("either of a hundred words: %d clauses", len(n.Clauses))
	}
	if n := mustParse(t, "("+strings.Join(many[:20], " ")+") or ("+strings.Join(many[20:40], " ")+")").Need(); len(n.Clauses) != 1 || n.Exact {
		t.Errorf("twenty or twenty: %s", needText(n))
	}
}

// holds is what a store decides by: whether the bytes have a literal.
func holds(raw []byte, l match.Literal) bool {
	text := raw
	if l.Fold {
		text = asciiLower(raw)
	}
	word := func(i int) bool {
		if i < 0 || i >= len(raw) {
			return false
		}
		r := rune(raw[i])
		return r < 0x80 && (unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_')
	}
	for from := 0; ; from++ {
		i := bytes.Index(text[from:], l.Text)
		if i < 0 {
			return false
		}
		if from += i; !l.Word || !word(from-1) && !word(from+len(l.Text)) {
			return true
		}
	}
}

func asciiLower(b []byte) []byte { return []byte(lower(string(b))) }

func satisfied(raw []byte, n match.Need) bool {
	for _, c := range n.Clauses {
		ok := false
		for _, l := range c {
			ok = ok || holds(raw, l)
		}
		if !ok {
			return false
		}
	}
	return true
}

// randomEvent makes a record in one of the ways in which formats carry users,
// processes and addresses.
func randomEvent(r *rand.Rand) *event.Event {
	pick := func(list ...string) string { return list[r.Intn(len(list))] }
	user := pick("root", "Root", "bob", "a.b-c_d", "x y", "bobby")
	pid := r.Intn(30)
	addr := netip.MustParseAddr(pick("10.0.0.7", "10.0.0.77", "192.168.1.1", "2001:db8::1"))
	ev := &event.Event{Origin: &event.Origin{Source: pick("journal", "kmsg"), Format: "f", Host: "h"}}
	words := pick("Failed password", "failed", "accepted KEY", "x", "érror", "")
	var raw string
	address := pick(addr.String(), "["+addr.String()+"]:22", addr.String()+":22", "("+addr.String()+")")
	if addr.Is4() && r.Intn(3) == 0 {
		b := addr.As4()
		address = pick("::ffff:"+addr.String(), fmt.Sprintf("::ffff:%x%02x:%x%02x", b[0], b[1], b[2], b[3]),
			fmt.Sprintf("0:0:0:0:0:FFFF:%X%02X:%X%02X", b[0], b[1], b[2], b[3]))
	}
	switch r.Intn(4) {
	case 0:
		raw = fmt.Sprintf("May 10 %s[%d]: user %s from %s", words, pid, user, address)
	case 1:
		name, err := json.Marshal(user)
		if err != nil {
			panic(err)
		}
		if r.Intn(2) == 0 {
			name = []byte(fmt.Sprintf(`"\u%04X%s"`, user[0], user[1:]))
		}
		raw = fmt.Sprintf(`{"msg":%q,"user":%s,"pid":%d,"ip":"%s"}`, words, name, pid, address)
	case 2:
		encoded := strings.ToUpper(hex.EncodeToString([]byte(user)))
		socket := "0200" + "0016" + strings.ToUpper(hex.EncodeToString(addr.AsSlice())) + "0000"
		raw = fmt.Sprintf("type=USER msg=audit(1): pid=%d acct=%s saddr=%s %s", pid, encoded, socket, words)
	case 3:
		raw = fmt.Sprintf("_PID=%d\nUSER=%s\nMESSAGE=%s %s", pid, user, words, address)
	}
	ev.Raw = []byte(raw)
	ev.Text = ev.Raw
	ev.User, ev.PID, ev.Addrs, ev.Message, ev.Severity = user, int64(pid), []netip.Addr{addr}, []byte(words), event.Severity(r.Intn(9))
	ev.Time = testNow.UnixNano() - int64(r.Intn(1e9))*1e6
	return ev
}

// randomQuery makes an expression of parts that random events often match.
func randomQuery(r *rand.Rand, depth int) string {
	if depth > 0 && r.Intn(3) > 0 {
		a, b := randomQuery(r, depth-1), randomQuery(r, depth-1)
		switch r.Intn(4) {
		case 0:
			return "(" + a + " " + b + ")"
		case 1, 2:
			return "(" + a + " or " + b + ")"
		}
		return "not (" + a + ")"
	}
	parts := []string{`Failed`, `"failed"`, `password`, `/fail(ed)?/`, `/(KEY|x)/i`, `user`, `"10.0.0.7"`, `root`, `é`, `*`, `"user=x y"`,
		`user=root`, `user==bob`, `user=bob*`, `user=*b*`, `user:o`, `user in (root, bob, "x y")`, `user in (a.b-c_d, Root)`, `pid=7`, `pid in (1, 22, 3)`,
		`addr=10.0.0.7`, `addr in (10.0.0.7, 10.0.0.77, 192.168.1.1)`, `addr=10.0.0.0/8`, `addr=2001:db8::1`, `severity>=err`, `has(user)`, `time>=-100d`,
		`source=journal`, `message:KEY`, `-user=root`}
	return parts[r.Intn(len(parts))]
}

// TestNeedIsSound holds what a store leaves out against what Eval finds.
func TestNeedIsSound(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	found, excluded, exact := 0, 0, 0
	for range 4000 {
		o := testOptions()
		o.Fold, o.Word = r.Intn(4) == 0, r.Intn(4) == 0
		expr := randomQuery(r, 3)
		q, err := Parse(expr, o)
		if err != nil {
			t.Fatal(err)
		}
		need := q.Need()
		since, until := q.TimeRange()
		e := q.NewEvaluator()
		for range 25 {
			ev := randomEvent(r)
			hit, kept := e.Eval(ev), satisfied(ev.Raw, need)
			switch {
			case hit && !kept:
				t.Fatalf("%s (fold %v, word %v) finds %q, which does not have %s", expr, o.Fold, o.Word, ev.Raw, needText(need))
			case need.Exact && kept && !hit:
				t.Fatalf("%s (fold %v, word %v) does not find %q, which has exactly %s", expr, o.Fold, o.Word, ev.Raw, needText(need))
			case hit && (ev.Time < since || ev.Time >= until):
				t.Fatalf("%s finds an event out of its range", expr)
			case hit:
				found++
			case !kept:
				excluded++
			}
			if need.Exact {
				exact++
			}
		}
	}
	if found < 10000 || excluded < 10000 || exact < 2000 {
		t.Errorf("%d found, %d excluded, %d exact: this tests too little", found, excluded, exact)
	}
}
