package audit

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/zeebo/blake3"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("AUDIT_TEST_DIR"); dir != "" {
		os.Exit(appendForever(dir))
	}
	os.Exit(m.Run())
}

var ctx = context.Background()

func newLog(dir string) (*Log, *state.Store) {
	s := state.New(filepath.Join(dir, "state"), state.Options{LockTimeout: 5 * time.Minute}) // many want it, on a busy machine
	return New(s, Options{LogDir: filepath.Join(dir, "log"), Host: "test"}), s
}

// grow appends n acts.
func grow(t testing.TB, l *Log, n int) {
	t.Helper()
	for i := range n {
		if _, err := l.Append(ctx, act(i)); err != nil {
			t.Fatal(err)
		}
	}
}

func act(i int) Act {
	return Act{
		Time:    time.Date(2026, 3, 1, 12, 0, i, 5, time.UTC),
		Actor:   Actor{UID: 1000 + i, User: "ada", LoginUID: -1, TTY: "/dev/pts/3", Remote: "192.0.2.7"},
		Command: "integrity check",
		Args:    []string{"--name=default", fmt.Sprint("path-", i)},
		Status:  i % 3,
		Result:  "2 changes",
		Elapsed: time.Duration(i) * time.Millisecond,
	}
}

func TestAppendAndRead(t *testing.T) {
	l, _ := newLog(t.TempDir())
	if v, err := l.Verify(ctx, VerifyOptions{}); err != nil || v.Records != 0 {
		t.Errorf("an empty chain: %+v, %v", v, err)
	}
	grow(t, l, 70)
	seen := 0
	err := l.Records(ctx, func(r Record) error {
		if r.Sequence != uint64(seen+1) || !reflect.DeepEqual(r.Act, act(seen)) {
			t.Errorf("record %d is %+v", seen+1, r)
		}
		seen++
		return nil
	})
	if err != nil || seen != 70 {
		t.Errorf("%d records, %v; want 70", seen, err)
	}
	v, err := l.Verify(ctx, VerifyOptions{})
	if err != nil || v.Records != 70 || v.Signatures != 2 || v.Unsigned != 5 || v.Outside == nil || v.Outside.Sequence != 65 {
		t.Errorf("%+v, %v; want heads signed at 1 and 65", v, err)
	}
	private, public := l.KeyFiles()
	for path, want := range map[string]os.FileMode{private: 0o600, public: 0o644, l.HeadFile(): 0o644} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %v", path, st.Mode(), err, want)
		}
	}
}

// The description in docs/formats/audit.md, followed by hand.
func TestFormat(t *testing.T) {
	l, s := newLog(t.TempDir())
	grow(t, l, 2)
	var values [][]byte
	if err := s.View(ctx, func(tx *state.Tx) error {
		return tx.Bucket([]byte("audit")).ForEach(func(_, v []byte) error {
			values = append(values, bytes.Clone(v))
			return nil
		})
	}); err != nil {
		t.Fatal(err)
	}
	str := func(s string) string { return fmt.Sprintf("%08x%x", len(s), s) }
	want := "01" + "0000000000000001" +
		fmt.Sprintf("%016x", time.Date(2026, 3, 1, 12, 0, 0, 5, time.UTC).UnixNano()) +
		"00000000000003e8" + "ffffffffffffffff" + "0000000000000000" + "0000000000000000" +
		str("ada") + str("/dev/pts/3") + str("192.0.2.7") + str("integrity check") + str("2 changes") +
		"00000002" + str("--name=default") + str("path-0")
	if got := hex.EncodeToString(values[0][32:]); got != want {
		t.Errorf("record 1 is\n%s, want\n%s", got, want)
	}
	prev := make([]byte, 32)
	for i, v := range values {
		sum := blake3.Sum256(append(prev, v[32:]...))
		if !bytes.Equal(sum[:], v[:32]) {
			t.Errorf("record %d: the hash is %x, want %x", i+1, v[:32], sum)
		}
		prev = sum[:]
	}
}

// openssl knows nothing of mobileops.
func TestSignatureUnderOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("NOT RUN: openssl is not installed")
	}
	dir := t.TempDir()
	l, _ := newLog(dir)
	grow(t, l, 1)
	h, err := ReadHead(l.HeadFile())
	if err != nil {
		t.Fatal(err)
	}
	_, public := l.KeyFiles()
	msg, sig := filepath.Join(dir, "msg"), filepath.Join(dir, "sig")
	b64 := exec.Command("base64", "-d")
	b64.Stdin = strings.NewReader(h.Signature)
	raw, err := b64.Output()
	if err := errors.Join(err, os.WriteFile(msg, h.message(), 0o600), os.WriteFile(sig, raw, 0o600)); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("openssl", "pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", "-in", msg, "-sigfile", sig).CombinedOutput()
	if err != nil {
		t.Errorf("openssl: %v: %s", err, out)
	}
}

func TestHeadIsSignedAfterAnHour(t *testing.T) {
	l, s := newLog(t.TempDir())
	grow(t, l, 3)
	for _, tc := range []struct {
		after time.Duration
		want  bool
	}{{time.Minute, false}, {59 * time.Minute, false}, {SignEvery + time.Second, true}, {-2 * SignEvery, true}} {
		rollback := errors.New("only asked")
		err := s.Update(ctx, func(tx *state.Tx) error {
			head, err := readHead(tx)
			if err != nil {
				return err
			}
			due, err := l.signIfDue(tx, head, time.Now().Add(tc.after))
			if err != nil {
				return err
			}
			if (due != nil) != tc.want {
				t.Errorf("after %v: signed %v, want %v", tc.after, due != nil, tc.want)
			}
			return rollback
		})
		if err != rollback {
			t.Fatal(err)
		}
	}
	if h, kept, err := l.Sign(ctx, false); err != nil || h.Sequence != 3 || kept != "" {
		t.Errorf("on demand: %+v, %q, %v", h, kept, err)
	}
	if h, err := ReadHead(l.HeadFile()); err != nil || h.Sequence != 3 {
		t.Errorf("the head file: %+v, %v", h, err)
	}
}

func TestKeyThatIsGoneIsNotReplaced(t *testing.T) {
	l, _ := newLog(t.TempDir())
	grow(t, l, 1)
	private, public := l.KeyFiles()
	if err := os.Remove(private); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Sign(ctx, false); failure.KindOf(err) != failure.Untrustworthy || !strings.Contains(err.Error(), private) {
		t.Errorf("%v; want that the key is gone", err)
	}
	if err := os.Remove(public); err != nil {
		t.Fatal(err)
	}
	grow(t, l, 63) // not due
	seq, err := l.Append(ctx, act(0))
	if seq != 65 || failure.KindOf(err) != failure.Untrustworthy {
		t.Errorf("%d, %v; want that 65 is recorded and not signed", seq, err)
	}
	v, err := l.Verify(ctx, VerifyOptions{})
	if failure.KindOf(err) != failure.Incomplete || v.Records != 65 {
		t.Errorf("%+v, %v; want that no signature could be checked", v, err)
	}
}

func TestKillDuringAppends(t *testing.T) {
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	l, _ := newLog(dir)
	var acknowledged uint64
	left := map[uint64]bool{} // how many records the kills left
	const kills = 60
	for i := range kills {
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), "AUDIT_TEST_DIR="+dir)
		cmd.Stderr = os.Stderr
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// The first kills hit the creation of the files. Every other one comes when
		// some appends were acknowledged, however long that takes.
		kill := func(within int) {
			time.AfterFunc(time.Duration(rand.IntN(within))*time.Millisecond, func() { cmd.Process.Kill() })
		}
		appends := 1 << 30
		if i%2 == 0 {
			kill(4 + 2*i)
		} else {
			appends = 2 + rand.IntN(9)
		}
		for out := bufio.NewReader(pipe); ; appends-- {
			if appends == 0 {
				kill(8)
			}
			line, err := out.ReadString('\n')
			if err != nil {
				break // a line without its end was not acknowledged
			}
			if _, err := fmt.Sscan(line, &acknowledged); err != nil {
				t.Fatal(err)
			}
		}
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("the child ended by itself: %v", err)
		}
		v, err := l.Verify(ctx, VerifyOptions{})
		// Killed between a record that makes a head due and its file, some proof is
		// missing until the next head is due, which may meet the same.
		left[v.Records] = true
		excused := true
		for due := uint64(1); due <= v.Records; due += SignEveryRecords {
			excused = excused && left[due]
		}
		if err != nil && !(failure.KindOf(err) == failure.Incomplete && excused) {
			t.Fatalf("kill %d, %d records: %v", i, v.Records, err)
		}
		if v.Records != acknowledged && v.Records != acknowledged+1 {
			t.Fatalf("kill %d: %d records, %d were acknowledged", i, v.Records, acknowledged)
		}
		acknowledged = v.Records
	}
	t.Logf("%d kills, %d records", kills, acknowledged)
	if acknowledged < kills {
		t.Errorf("only %d records, so the kills proved little", acknowledged)
	}
}

func appendForever(dir string) int {
	l, _ := newLog(dir)
	for i := 0; ; i++ {
		seq, err := l.Append(ctx, act(i))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Println(seq)
	}
}

func TestManyAppendAtOnce(t *testing.T) {
	dir := t.TempDir()
	errs := make(chan error)
	const n = 32
	for i := range n {
		go func() {
			l, _ := newLog(dir)
			var err error
			for k := 0; k < 5 && err == nil; k++ {
				_, err = l.Append(ctx, act(i))
			}
			errs <- err
		}()
	}
	l, _ := newLog(dir)
	for done := 0; done < n; {
		select {
		case err := <-errs:
			if done++; err != nil {
				t.Error(err)
			}
		default:
			if _, err := l.Verify(ctx, VerifyOptions{}); err != nil && failure.KindOf(err) != failure.Incomplete {
				t.Fatalf("verifying meanwhile: %v", err)
			}
		}
	}
	if v, err := l.Verify(ctx, VerifyOptions{}); err != nil || v.Records != n*5 {
		t.Errorf("%+v, %v; want %d records", v, err, n*5)
	}
}

func TestLongActIsCutAndSaysSo(t *testing.T) {
	l, _ := newLog(t.TempDir())
	long := Act{Command: "x", Result: "two\nlines " + strings.Repeat("é", 9000), Args: []string{strings.Repeat("a", 10_000)}}
	for i := range 5000 {
		long.Args = append(long.Args, fmt.Sprintf("/a/path/of/some/length/%d", i))
	}
	if _, err := l.Append(ctx, long); err != nil {
		t.Fatal(err)
	}
	err := l.Records(ctx, func(r Record) error {
		if !strings.HasPrefix(r.Result, "two lines é") || !strings.HasSuffix(r.Result, " more bytes]") {
			t.Errorf("result %.20q…%q", r.Result, r.Result[len(r.Result)-30:])
		}
		if last := r.Args[len(r.Args)-1]; !strings.HasPrefix(last, "[and ") || !strings.HasSuffix(last, " more arguments]") {
			t.Errorf("the last argument is %q", last)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestSelf(t *testing.T) {
	a := Self(RemoteOfSSH("192.0.2.7 50122 198.51.100.1 22"))
	if a.UID != os.Getuid() || a.Remote != "192.0.2.7" || a.LoginUID < -1 || a.LoginUID == noLoginUID {
		t.Errorf("%+v", a)
	}
	if os.Getuid() == 0 && a.User != "root" {
		t.Errorf("user %q", a.User)
	}
	if r := RemoteOfSSH(""); r != "" {
		t.Errorf("remote %q without SSH", r)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(1, act(1)))
	f.Add(encode(1<<63, Act{Args: []string{"", "\xff\n"}}))
	f.Add([]byte{recordVersion})
	f.Add(append(encode(7, Act{}), 0))
	huge := encode(7, Act{})
	binary.BigEndian.PutUint32(huge[len(huge)-4:], 1<<31)
	f.Add(huge)
	f.Fuzz(func(t *testing.T, b []byte) {
		seq, a, err := decode(b)
		if err != nil {
			var d *DecodeError
			if !errors.As(err, &d) || d.Offset < 0 || d.Offset > len(b) {
				t.Errorf("%v is not a DecodeError within the record", err)
			}
			return
		}
		if got := encode(seq, a); !bytes.Equal(got, b) {
			t.Errorf("%x is decoded, and encodes to %x", b, got)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	l, _ := newLog(b.TempDir())
	for i := 0; b.Loop(); i++ {
		if _, err := l.Append(ctx, act(i)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	l, s := newLog(b.TempDir())
	grow(b, l, 1)
	const n = 100_000
	if err := s.Update(ctx, func(tx *state.Tx) error { return appendMany(tx, n) }); err != nil {
		b.Fatal(err)
	}
	if _, _, err := l.Sign(ctx, false); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if v, err := l.Verify(ctx, VerifyOptions{}); err != nil || v.Records != n+1 {
			b.Fatal(v, err)
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

// appendMany makes a long chain in one transaction.
func appendMany(tx *state.Tx, n int) error {
	head, err := readHead(tx)
	if err != nil {
		return err
	}
	for i := range n {
		head.Sequence++
		body := encode(head.Sequence, act(i))
		head.Hash = chain(head.Hash, body)
		if err := tx.Bucket(recordBucket()).Put(sequenceKey(head.Sequence), append(head.Hash[:len(head.Hash):len(head.Hash)], body...)); err != nil {
			return err
		}
	}
	return tx.Bucket(headBucket()).Put(headKey(), append(sequenceKey(head.Sequence), head.Hash[:]...))
}
