package query

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

var testNow = time.Date(2026, 5, 10, 12, 0, 0, 0, time.UTC)

func testOptions() Options { return Options{Now: testNow, Zone: time.UTC} }

func mustParse(t *testing.T, expr string) *Query {
	t.Helper()
	q, err := Parse(expr, testOptions())
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	return q
}

func TestParse(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		// Words, phrases, operators.
		{``, `*`},
		{`*`, `*`},
		{`failed`, `"failed"`},
		{`Failed password`, `"Failed" and "password"`},
		{`"Failed password"`, `"Failed password"`},
		{`'Failed password'`, `"Failed password"`},
		{`a and b or c`, `("a" and "b") or "c"`},
		{`a or b c`, `"a" or ("b" and "c")`},
		{`a AND (b OR c)`, `"a" and ("b" or "c")`},
		{`a && b || c`, `("a" and "b") or "c"`},
		{`a (b c) d`, `"a" and "b" and "c" and "d"`},
		{`a -bad`, `"a" and not "bad"`},
		{`a !b`, `"a" and not "b"`},
		{`a NOT b`, `"a" and not "b"`},
		{`a and not b`, `"a" and not "b"`},
		{`(not b)`, `not "b"`},
		{`-(a or b)`, `not ("a" or "b")`},
		{`not (a b)`, `not ("a" and "b")`},
		{`not "b c"`, `not "b c"`},
		{`not user=root`, `not user=="root"`},
		{`!!a`, `"a"`},
		{`"a\"b\\c\x07\t/"`, `"a\"b\\c\x07\t/"`},
		{`'C:\new'`, `"C:\\new"`},
		{`a\ b`, `"a b"`},
		{`user\=root`, `"user=root"`},
		{`""`, `*`},
		{`and1 Or nothing`, `"and1" and "Or" and "nothing"`},
		{`/fail(ed|ure)/`, `/fail(ed|ure)/`},
		{`/a b/i`, `/a b/i`},
		{`/a\/b[/]/ c`, `/a\/b[/]/ and "c"`},

		// What people who know grep type.
		{`error:`, `"error:"`},
		{`10.0.0.1:22`, `"10.0.0.1:22"`},
		{`uid=0`, `"uid=0"`},
		{`rhost=1.2.3.4`, `"rhost=1.2.3.4"`},
		{`logname= uid=0 tty=ssh`, `"logname=" and "uid=0" and "tty=ssh"`},
		{`foo(bar)`, `"foo(bar)"`},
		{`pam_unix(sshd:auth):`, `"pam_unix(sshd:auth):"`},
		{`init()`, `"init()"`},
		{`(a or init())`, `"a" or "init()"`},
		{`[preauth]`, `"[preauth]"`},
		{`http://x/y`, `"http://x/y"`},
		{`sshd:auth`, `"sshd:auth"`},
		{`/var/log/messages`, `"/var/log/messages"`},
		{`/var/log`, `"/var/log"`},
		{`/etc`, `"/etc"`},
		{`// comment`, `"//" and "comment"`},
		{`msg="failed login" x`, `"msg=\"failed login\"" and "x"`},
		{`comm="sshd"`, `"comm=\"sshd\""`},
		{`don't`, `"don't"`},
		{`ATTEMPT!`, `"ATTEMPT!"`},
		{`foo->bar`, `"foo->bar"`},
		{`eth0 -> eth1`, `"eth0" and "->" and "eth1"`},
		{`from=<a@b.c>`, `"from=<a@b.c>"`},
		{`<info>`, `"<info>"`},
		{`Vec<i32>`, `"Vec<i32>"`},
		{`from <user@x>`, `"from" and "<user@x>"`},
		{`dGVzdA==`, `"dGVzdA=="`},
		{`{"a":1}`, `"{\"a\":1}"`},
		{`user: root`, `"user:" and "root"`},
		{`logged in now`, `"logged" and "in" and "now"`},
		{`user in group`, `"user" and "in" and "group"`},
		{`invalid user bob`, `"invalid" and "user" and "bob"`},
		{`dfs.DataNode$PacketResponder:`, `"dfs.DataNode$PacketResponder:"`},
		{`id?x=1&y=2`, `"id?x=1&y=2"`},
		{`foo~bar`, `"foo~bar"`},
		{`blk_-69529`, `"blk_-69529"`},
		{`50%`, `"50%"`},
		{`#5`, `"#5"`},

		// Fields.
		{`user=root`, `user=="root"`},
		{`user==root`, `user=="root"`},
		{`user = root`, `user=="root"`},
		{`user:root`, `user:"root"`},
		{`user!=root`, `not user=="root"`},
		{`user != root`, `not user=="root"`},
		{`user=""`, `not has(user)`},
		{`user=*`, `has(user)`},
		{`host:*`, `has(host)`},
		{`unit=ssh*`, `unit=="ssh"*`},
		{`unit:ssh*d`, `unit=="ssh"*"d"`},
		{`unit="ssh*"`, `unit=="ssh*"`},
		{`unit=a**b*`, `unit=="a"*"b"*`},
		{`message:[preauth]`, `message:"[preauth]"`},
		{`status=500`, `"status=500"`},
		{`status==500`, `status=="500"`},
		{`status!=500`, `not status=="500"`},
		{`status>=500`, `status>="500"`},
		{`status >= 500`, `status>="500"`},
		{`http.status>499 and took>1.5s`, `http.status>"499" and took>"1.5s"`},
		{`status:[500..599]`, `"status:[500..599]"`},
		{`status==[500..599]`, `status==["500".."599"]`},
		{`_COMM=sshd`, `_COMM=="sshd"`},
		{`PRIORITY=3`, `PRIORITY=="3"`},
		{`program~/ssh.*/`, `program~/ssh.*/`},
		{`program=~"ssh.*"`, `program~/ssh.*/`},
		{`program!~/ssh/i`, `not program~/ssh/i`},
		{`path~/\/etc\/.*/`, `path~/\/etc\/.*/`},
		{`user in (root, "x y", adm*)`, `user in ("root", "x y", "adm"*)`},
		{`user in(root)`, `user=="root"`},
		{`level in (error,fatal)`, `level in ("error", "fatal")`},
		{`addr=10.0.0.0/8`, `addr=="10.0.0.0/8"`},
		{`addr in 10.0.0.0/8`, `addr=="10.0.0.0/8"`},
		{`addr:10.0.`, `addr:"10.0."`},
		{`addr=::1`, `addr=="::1"`},
		{`addr:[10.0.0.1..10.0.0.9]`, `addr==["10.0.0.1".."10.0.0.9"]`},
		{`severity>=err`, `severity>="err"`},
		{`severity=3`, `severity=="3"`},
		{`severity:[warning TO crit]`, `severity==["warning".."crit"]`},
		{`pid:[1..]`, `pid==["1"..]`},
		{`time>=-1h`, `time>="-1h"`},
		{`time>="2026-05-01 14:30"`, `time>="2026-05-01 14:30"`},
		{`time:[2026-05-01..2026-05-02]`, `time==["2026-05-01".."2026-05-02"]`},
		{`has(user)`, `has(user)`},
		{`has("odd name")`, `has("odd name")`},
		{`exists(user)`, `"exists(user)"`},
		{`"k8s.io/app name"==web "x y">=5 a`, `"k8s.io/app name"=="web" and "x y">="5" and "a"`},
		{`"x y"~/a/`, `"x y"~/a/`},
		{`"user"==root`, `user=="root"`},
		{`"sum(x)"==1`, `"sum(x)"=="1"`},

		// Pipelines.
		{`| count`, `* | stats count()`},
		{`a|count`, `"a" | stats count()`},
		{`a | stats count by host`, `"a" | stats count() by host`},
		{`a | stats by host`, `"a" | stats count() by host`},
		{`* | stats count(), avg(bytes) as size, p95(took), dc(user) by (host, time(1h))`, `* | stats count(), avg(bytes) as size, p95(took), dc(user) by host, time(1h)`},
		{`* | stats median(x)`, `* | stats p50(x)`},
		{`* | stats count() by host | sort -count, host | head 5`, `* | stats count() by host | sort -count, host | head 5`},
		{`* | sort by time desc`, `* | sort -time`},
		{`* | top user`, `* | top 10 user`},
		{`* | top 3 user, addr`, `* | top 3 user, addr`},
		{`* | histogram 90m`, `* | histogram 90m`},
		{`* | histogram 1w by host`, `* | histogram 7d by host`},
		{`* | dedup host | fields time, host, message | tail`, `* | dedup host | fields time, host, message | tail 10`},
		{`* | where bytes > 10K`, `* | where bytes>"10K"`},
		{`* | stats sum(bytes), count() by host | where sum(bytes) > 1M and count() >= 2`, `* | stats sum(bytes), count() by host | where "sum(bytes)">"1M" and count>="2"`},
		{`* | stats count() as n by host | where host=web* or n=3`, `* | stats count() as n by host | where host=="web"* or n=="3"`},
		{`* | limit 3`, `* | head 3`},
		{`* | count by host`, `* | stats count() by host`},
		{`* | count()`, `* | stats count()`},
		{`* | stats count() by "x y" | where "x y"==a and has("x y") | sort -"x y"`, `* | stats count() by "x y" | where "x y"=="a" and has("x y") | sort -"x y"`},
	} {
		q, err := Parse(tc.in, testOptions())
		if err != nil {
			t.Errorf("%s: %v", tc.in, err)
			continue
		}
		if got := q.String(); got != tc.want {
			t.Errorf("%s is\n%s, want\n%s", tc.in, got, tc.want)
			continue
		}
		again, err := Parse(tc.want, testOptions())
		if err != nil {
			t.Errorf("%s: the canonical form does not parse: %v", tc.want, err)
		} else if got := again.String(); got != tc.want {
			t.Errorf("%s becomes %s", tc.want, got)
		}
	}
}

func TestErrors(t *testing.T) {
	for _, tc := range []struct {
		in     string
		column int
		want   []string // in the text of the error
	}{
		{`(a or b`, 8, []string{`")" expected`, "column 1"}},
		{`a)`, 2, []string{`")" without "("`, "quotes"}},
		{`()`, 2, []string{"something to look for"}},
		{`a or`, 5, []string{"something to look for"}},
		{`or a`, 1, []string{"something to look for", `"or"`}},
		{`a and and b`, 7, []string{"something to look for"}},
		{`"abc`, 1, []string{"no partner"}},
		{`é "abc`, 3, []string{"no partner"}},
		{`"a"b`, 4, []string{"right behind the quotes"}},
		{`"status":500`, 9, []string{`'"status":500'`}},
		{`"\d+"`, 2, []string{`\d`, "single quotes"}},
		{`file not found`, 6, []string{"two ways", "-found", `"not found"`}},
		{`not found`, 1, []string{"two ways"}},
		{`error -v sshd`, 7, []string{"flag", `"-v"`}},
		{`a -`, 3, []string{"stands alone"}},
		{`a --since 1h`, 3, []string{"flag", `"--since"`}},
		{`status -1`, 8, []string{"two ways", `"-1"`}},
		{`foo.*bar`, 5, []string{"/foo.*bar/"}},
		{`ssh*`, 4, []string{"ssh;", `"ssh*"`}},
		{`^root`, 1, []string{"/^root/"}},
		{`root$`, 5, []string{"/root$/"}},
		{`[0-9]+`, 1, []string{"/[0-9]+/"}},
		{`\d+`, 1, []string{`/\d+/`}},
		{`C:\Users`, 3, []string{`'C:\Users'`}},
		{`/a(/`, 1, []string{"missing closing )"}},
		{`a|b`, 3, []string{`"b" is no stage`, "/a|b/"}},
		{`a | wc -l`, 5, []string{"| count"}},
		{`a | grep b`, 5, []string{"one after the other"}},
		{`a | hed 5`, 5, []string{"did you mean head?"}},
		{`a |= "b"`, 3, []string{"stand next to each other"}},
		{`(a | count)`, 4, []string{"pipeline"}},
		{`user=`, 6, []string{`user=""`, `"user="`}},
		{`user=(root)`, 6, []string{"user in (a, b)"}},
		{`user>5`, 6, []string{"no order"}},
		{`status = 500`, 8, []string{"status==500", `"status = 500"`}},
		{`a == `, 3, []string{"no field before it"}},
		{`severity>=errr`, 11, []string{"no severity", "did you mean err?"}},
		{`severity>=3`, 11, []string{"two ways"}},
		{`pid=abc`, 5, []string{"no process id"}},
		{`addr=10.0.0`, 6, []string{"no network address", "10.0.*"}},
		{`time>=tomorrowish`, 7, []string{"no time"}},
		{`time=2026*`, 6, []string{"no pattern"}},
		{`clock=exakt`, 7, []string{"no clock"}},
		{`pid:[9..1]`, 5, []string{"ends before"}},
		{`program~ssh`, 9, []string{"between slashes"}},
		{`user in (a b)`, 12, []string{`"," or ")"`}},
		{`user in (a,)`, 12, []string{"a value"}},
		{`* | stats avg() by host`, 11, []string{"avg(field)"}},
		{`* | stats coutn()`, 11, []string{"did you mean"}},
		{`* | stats avg(time)`, 15, []string{"times"}},
		{`* | stats count() by host | sort hots`, 34, []string{`no column "hots"`, "did you mean host?"}},
		{`* | stats count() by host | where cuont > 5`, 35, []string{"did you mean count?"}},
		{`* | stats count() by host | where foo`, 35, []string{"compares columns", "host, count"}},
		{`* | stats count(), count()`, 10, []string{"two columns"}},
		{`* | head x`, 10, []string{"expected"}},
		{`* | head -5`, 10, []string{"a number"}},
		{`* | histogram`, 14, []string{"length of a bucket"}},
		{`* | sort`, 9, []string{"name of a field"}},
		{`* | fields a b`, 14, []string{"commas"}},
		{`* | `, 5, []string{"a stage is expected"}},
		{`* |`, 4, []string{"a stage is expected"}},
		{strings.Repeat("(", 300) + "a", 0, []string{"100"}},
		{strings.Repeat("!", 300) + "a", 0, []string{"100"}},
		{strings.Repeat("a", 65<<10), 0, []string{"64 KiB"}},
		{"user in (" + strings.Repeat("a,", 1001) + "a)", 0, []string{"1000 values"}},
		{"*" + strings.Repeat("| head ", 40), 0, []string{"32 stages"}},
	} {
		_, err := Parse(tc.in, testOptions())
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%.40s: %v, want an *Error", tc.in, err)
			continue
		}
		if tc.column > 0 && e.Column != tc.column {
			t.Errorf("%s: column %d, want %d: %v", tc.in, e.Column, tc.column, err)
		}
		for _, w := range tc.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%.40s: %q says nothing about %q", tc.in, err, w)
			}
		}
		if failure.KindOf(err) != failure.Usage {
			t.Errorf("%.40s: of kind %v", tc.in, failure.KindOf(err))
		}
	}
}

func TestPointer(t *testing.T) {
	for _, tc := range []struct{ expr, want string }{
		{`a and`, "a and\n     ^"},
		{"\x1b[31m \"b", "\\x1b[31m \"b\n         ^"},
		{"日本 \"b", "日本 \"b\n     ^"},
		{"\xff\u202e \"b", "\\xff\\u202e \"b\n           ^"},
	} {
		_, err := Parse(tc.expr, testOptions())
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%q: %v", tc.expr, err)
			continue
		}
		if got := e.Pointer(tc.expr); got != tc.want {
			t.Errorf("%q is drawn as\n%s\nwant\n%s", tc.expr, got, tc.want)
		}
	}
	long := strings.Repeat("a ", 500) + ") " + strings.Repeat("b ", 500)
	_, err := Parse(long, testOptions())
	var e *Error
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	lines := strings.Split(e.Pointer(long), "\n")
	if len(lines[0]) > 2*pointerWidth+8 || []rune(lines[0])[strings.Index(lines[1], "^")] != ')' {
		t.Errorf("a long line is drawn as\n%s\n%s", lines[0], lines[1])
	}
	if got := (&Error{Column: 99}).Pointer("x"); got != "x\n ^" {
		t.Errorf("a column beyond the end: %q", got)
	}
}

func TestWholeExpressions(t *testing.T) {
	o := testOptions()
	o.Fixed = true
	q, err := Parse(`a|b (c`, o)
	if err != nil || q.String() != `"a|b (c"` {
		t.Errorf("fixed: %v, %v", q, err)
	}
	o.Fixed, o.Regex = false, true
	q, err = Parse(`a/b|c`, o)
	if err != nil || q.String() != `/a\/b|c/` || q.Pipeline() != nil {
		t.Errorf("regex: %v, %v", q, err)
	}
	if _, err := Parse(`a(`, o); failure.KindOf(err) != failure.Usage {
		t.Errorf("a bad regex: %v", err)
	}
}

func TestNotes(t *testing.T) {
	for expr, want := range map[string]string{
		`status=500`: "for the field write status==500",
		`hots=web1`:  "host=web1, or hots==web1",
		`hots:web1`:  "host:web1",
	} {
		notes := mustParse(t, expr).Notes()
		if len(notes) != 1 || !strings.Contains(notes[0], want) {
			t.Errorf("%s: %q, want %q", expr, notes, want)
		}
	}
	if notes := mustParse(t, `uid=0`).Notes(); len(notes) != 1 || strings.Contains(notes[0], "pid") {
		t.Errorf("uid=0: %q", notes)
	}
	if notes := mustParse(t, `| top 5 usre`).Notes(); len(notes) != 1 || !strings.Contains(notes[0], "every event has user") {
		t.Errorf("usre: %q", notes)
	}
	for _, expr := range []string{`user=root`, `http://x`, `error:`, `failed`} {
		if notes := mustParse(t, expr).Notes(); len(notes) > 0 {
			t.Errorf("%s: %q", expr, notes)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`Failed password -root`, `user=root and (severity>=err or addr in 10.0.0.0/8)`, `/a[/]b/i "x\x00y" 'C:\'`,
		`time:[2026-05-01..now] unit=ssh* | stats count(), p95(took) by host, time(1h) | where count > 3 | sort -count | head 5`,
		`msg="a b" has("x y") program!~/a/ | top 5 "odd (name)" | fields "odd (name)"`, `not "a" !b -c NOT d`, `a|`, `((((`, "\xff\x00é",
		`* | stats sum(x) as y by z | sort y desc`, `x==[1..5] y in (1, *a*, "")`, `"x y"==a | stats sum("x y") | where sum(x y)>1 or "sum(x y)"!=2`,
	} {
		f.Add(s, false)
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, expr string, fold bool) {
		o := testOptions()
		o.Fold, o.Word = fold, fold
		q, err := Parse(expr, o)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Column < 1 || e.Message == "" {
				t.Fatalf("%q: %#v", expr, err)
			}
			e.Pointer(expr)
			return
		}
		text := q.String()
		again, err := Parse(text, o)
		if err != nil {
			if len(text) > maxLength {
				return
			}
			t.Fatalf("%q is %q, which is: %v", expr, text, err)
		}
		if got := again.String(); got != text {
			t.Fatalf("%q is %q, which is %q", expr, text, got)
		}
		q.Need()
		q.TimeRange()
		q.Sources()
		q.FieldsNeeded()
		Complete(expr)
		if p := q.Pipeline(); p != nil {
			if err := p.Add(sampleEvent()); err != nil && err != ErrDone {
				t.Fatal(err)
			}
			if _, err := p.Result(); err != nil {
				t.Fatal(err)
			}
		}
		q.NewEvaluator().Eval(sampleEvent())
	})
}
