package journal

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const remotePath = "/lib/systemd/systemd-journal-remote"

// needSystemd skips a test, loudly, where there is nothing to compare with.
func needSystemd(t testing.TB) {
	t.Helper()
	if _, err := os.Stat(remotePath); err != nil {
		t.Skip("no systemd-journal-remote (apt-get install systemd-journal-remote): nothing makes real journals here")
	}
	if _, err := exec.LookPath("journalctl"); err != nil {
		t.Skip("no journalctl (apt-get install systemd): nothing to compare with")
	}
}

// remote makes systemd-journal-remote write entries in the export format to a file.
func remote(t testing.TB, path string, input []byte, env []string, flags ...string) {
	t.Helper()
	cmd := exec.Command(remotePath, append(flags, "-o", path, "-")...)
	cmd.Stdin = bytes.NewReader(input)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("systemd-journal-remote: %v\n%s", err, out)
	}
}

// journalctl returns what it prints.
func journalctl(t testing.TB, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("journalctl", append([]string{"-q", "--no-pager"}, args...)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil && len(out) > 0 {
		t.Fatalf("journalctl %v: %v\n%s", args, err, errs.Bytes())
	}
	return out
}

// variant is the variant of the export format that the journalctl of this
// machine prints.
func variant(t testing.TB) Export {
	var version int
	out, err := exec.Command("journalctl", "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Sscanf(string(out), "systemd %d", &version)
	if version >= 254 {
		return ExportSeqnum
	}
	return ExportClassic
}

// open opens a set; problems fail the test.
func open(t testing.TB, o Options, paths ...string) *Set {
	t.Helper()
	if o.Report == nil {
		o.Report = func(err error) { t.Helper(); t.Errorf("reported: %v", err) }
	}
	s, err := Open(o, paths...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// exportAll returns what is left of a set in the export format.
func exportAll(t testing.TB, s *Set, v Export) (out []byte) {
	t.Helper()
	for {
		e, err := s.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if out, err = e.AppendExport(out, v); err != nil {
			t.Fatal(err)
		}
	}
}

// sameExport fails when two exports differ, and shows the first difference.
func sameExport(t testing.TB, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	a, b := bytes.Split(got, []byte("\n\n")), bytes.Split(want, []byte("\n\n"))
	for i := range min(len(a), len(b)) {
		if !bytes.Equal(a[i], b[i]) {
			t.Fatalf("entry %d of %d (journalctl: %d) differs:\n%.1500q\njournalctl:\n%.1500q", i, len(a)-1, len(b)-1, a[i], b[i])
		}
	}
	t.Fatalf("%d entries, journalctl has %d", len(a)-1, len(b)-1)
}

// spec says what entries generate makes.
type spec struct {
	seed    uint64
	n       int
	start   uint64 // realtime in microseconds
	step    uint64 // between entries at most
	boot    string
	machine string
	binary  bool // with binary, big and repeated fields
}

var words = strings.Fields(`session opened closed for user root news cyrus connection from failed password
	accepted publickey kernel usb device descriptor read error unit started stopped reloading daemon
	authentication failure uid euid tty ruser rhost port ssh2 invalid disconnect timeout memory Zürich naïve`)

// generate returns entries in the export format.
func generate(s spec) []byte {
	r := rand.New(rand.NewPCG(s.seed, 99))
	var b bytes.Buffer
	if s.boot == "" {
		s.boot = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"
	}
	if s.machine == "" {
		s.machine = "aaaabbbbccccddddeeeeffff00001111"
	}
	if s.step == 0 {
		s.step = 2_000_000
	}
	if s.start == 0 {
		s.start = 1_780_000_000_000_000
	}
	binary := func(name string, value []byte) {
		b.WriteString(name + "\n")
		b.Write(le.AppendUint64(nil, uint64(len(value))))
		b.Write(value)
		b.WriteByte('\n')
	}
	now := s.start
	for i := range s.n {
		now += r.Uint64N(s.step)
		fmt.Fprintf(&b, "__REALTIME_TIMESTAMP=%d\n__MONOTONIC_TIMESTAMP=%d\n_BOOT_ID=%s\n", now, now-s.start+1_000_000, s.boot)
		program := []string{"sshd", "su", "kernel", "cron", "ftpd"}[r.IntN(5)]
		pid := 100 + r.IntN(50)
		fmt.Fprintf(&b, "_MACHINE_ID=%s\n_HOSTNAME=host%d\nPRIORITY=%d\n_PID=%d\n_COMM=%s\n_SYSTEMD_UNIT=%s.service\n", s.machine, r.IntN(2), r.IntN(8), pid, program, program)
		if program != "kernel" {
			fmt.Fprintf(&b, "SYSLOG_IDENTIFIER=%s\n_UID=%d\n", program, r.IntN(3)*1000)
		}
		var m []string
		for range 2 + r.IntN(9) {
			m = append(m, words[r.IntN(len(words))])
		}
		m = append(m, fmt.Sprintf("10.0.%d.%d", r.IntN(4), r.IntN(256)))
		message := strings.Join(m, " ")
		switch k := r.IntN(20); {
		case !s.binary:
			fmt.Fprintf(&b, "MESSAGE=%s\n", message)
		case k == 0:
			binary("MESSAGE", []byte(message+"\n  at main.go:12\n\n__CURSOR=s=fake\nX=y"))
		case k == 1:
			binary("MESSAGE", []byte{0, 1, 2, 255, '=', '\n', byte(i)})
		case k == 2: // big enough to be compressed
			fmt.Fprintf(&b, "MESSAGE=%s\n", strings.Repeat(message+" ", 12+r.IntN(400)))
		case k == 3:
			fmt.Fprintf(&b, "MESSAGE=%s\nTAG=a\nTAG=b\nTAG=%d\n", message, i)
		case k == 4:
			noise := make([]byte, 600+r.IntN(3000))
			for i := range noise {
				noise[i] = byte(r.UintN(256))
			}
			fmt.Fprintf(&b, "MESSAGE=%s\n", message)
			binary("BLOB", noise)
		case k == 5:
			fmt.Fprintf(&b, "MESSAGE=tab\there \u00e9\u4e16\u754c\U0001F600\n")
			binary("ODD", []byte("\ufdd0 \u009f \xff\xfe"))
		case k == 6:
			fmt.Fprintf(&b, "MESSAGE=\nEMPTY=\n")
		default:
			fmt.Fprintf(&b, "MESSAGE=%s\n", message)
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// realFormats are the variants that the systemd of this machine writes.
var realFormats = []struct {
	name  string
	env   []string
	flags []string
}{
	{"compact", []string{"SYSTEMD_JOURNAL_COMPACT=1"}, nil},
	{"regular", []string{"SYSTEMD_JOURNAL_COMPACT=0"}, nil},
	{"regular-jenkins", []string{"SYSTEMD_JOURNAL_COMPACT=0", "SYSTEMD_JOURNAL_KEYED_HASH=0"}, nil},
	{"uncompressed", nil, []string{"--compress=no"}},
	{"xz", []string{"SYSTEMD_JOURNAL_COMPRESS=XZ"}, nil}, // from systemd 254 on; before, ZSTD
	{"lz4", []string{"SYSTEMD_JOURNAL_COMPRESS=LZ4"}, nil},
}

func TestExportEqualsJournalctl(t *testing.T) {
	needSystemd(t)
	for i, f := range realFormats {
		t.Run(f.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.journal")
			remote(t, path, generate(spec{seed: uint64(i), n: 3000, binary: true}), f.env, f.flags...)
			s := open(t, Options{}, path)
			got := exportAll(t, s, variant(t))
			if n := bytes.Count(got, []byte("__CURSOR=s=")) - bytes.Count(got, []byte("__CURSOR=s=fake")); n != 3000 {
				t.Fatalf("%d entries of 3000", n)
			}
			sameExport(t, got, journalctl(t, "-o", "export", "--file", path))
		})
	}
}

// boots are boots and machines for entries of several files.
var boots = []string{"11111111111111111111111111111111", "22222222222222222222222222222222", "33333333333333333333333333333333"}

// manyFiles fills a directory with files whose entries interleave: of several
// machines and boots, some of them twice, below directories of machines too.
func manyFiles(t testing.TB, dir string, seed uint64) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 5))
	machine := filepath.Join(dir, "aaaabbbbccccddddeeeeffff00001111")
	for _, d := range []string{machine, machine + ".namespace", filepath.Join(dir, "other"), filepath.Join(machine, boots[0])} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for i, name := range []string{"system.journal", "user-1000.journal", "a@b.journal~", "remote-x.journal", machine + "/system.journal",
		machine + "/user-1.journal", machine + ".namespace/system.journal", "other/x.journal", "aaaabbbbccccddddeeeeffff00001111/" + boots[0] + "/y.journal", "c.journal", "not-a-journal"} {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		path := filepath.Join(t.TempDir(), "x.journal") // the other names are not taken by systemd-journal-remote
		start := 1_780_000_000_000_000 + uint64(r.IntN(100))*1_000_000
		boot := boots[r.IntN(len(boots))]
		input := generate(spec{seed: seed*100 + uint64(i), n: 150 + r.IntN(200), start: start, boot: boot, binary: true})
		if i%3 == 0 { // two boots in one file
			input = append(input, generate(spec{seed: seed*100 + 50 + uint64(i), n: 100, start: start + 300_000_000, boot: boots[r.IntN(len(boots))]})...)
		}
		env := []string{fmt.Sprintf("SYSTEMD_JOURNAL_COMPACT=%d", i%2)}
		remote(t, path, input, env)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if i%4 == 1 { // the same entries twice
			os.WriteFile(filepath.Join(dir, fmt.Sprintf("copy%d.journal", i)), data, 0o600)
		}
		if i%4 == 2 { // the same entries from another source of numbers
			remote(t, filepath.Join(dir, fmt.Sprintf("again%d.journal", i)), input, env)
		}
	}
}

func TestManyFilesEqualJournalctl(t *testing.T) {
	needSystemd(t)
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			dir := t.TempDir()
			manyFiles(t, dir, seed)
			want := journalctl(t, "-o", "export", "--directory", dir)
			if bytes.Count(want, []byte("__CURSOR=")) < 300 {
				t.Fatal("journalctl has not read the files of the test")
			}
			sameExport(t, exportAll(t, open(t, Options{}, dir), variant(t)), want)
			// KeepAll leaves out nothing but repetitions.
			set := open(t, Options{KeepAll: true}, dir)
			all, each := map[string]bool{}, map[string]bool{}
			entriesOf(exportAll(t, set, variant(t)), all)
			for _, name := range set.Files() {
				entriesOf(exportAll(t, open(t, Options{}, name), variant(t)), each)
			}
			if len(each) < 1000 || !maps.Equal(all, each) {
				t.Errorf("KeepAll has %d different entries, and the files %d", len(all), len(each))
			}
		})
	}
}

// entriesOf adds the entries of an export, but for their cursors.
func entriesOf(export []byte, to map[string]bool) {
	for _, e := range bytes.Split(export, []byte("\n\n__CURSOR=s=")) {
		if _, rest, ok := bytes.Cut(e, []byte("\n__REALTIME")); ok {
			to[string(bytes.TrimRight(rest, "\n"))] = true
		}
	}
}

func TestSynthesizedEqualsJournalctl(t *testing.T) {
	needSystemd(t)
	for _, pack := range []byte{0, flagXZ, flagLZ4, flagZSTD} {
		for _, compact := range []bool{false, true} {
			for _, keyed := range []bool{false, true} {
				for _, sealed := range []bool{false, true} {
					t.Run(fmt.Sprintf("pack=%d,compact=%v,keyed=%v,sealed=%v", pack, compact, keyed, sealed), func(t *testing.T) {
						path := filepath.Join(t.TempDir(), "a.journal")
						w := synthesize(t, 200, compact, keyed, pack, sealed)
						if err := os.WriteFile(path, w.bytes(), 0o600); err != nil {
							t.Fatal(err)
						}
						if !sealed { // the seals are not valid
							if out, err := exec.Command("journalctl", "--verify", "--file", path).CombinedOutput(); err != nil {
								t.Fatalf("the file of the test is not right: %v\n%s", err, out)
							}
						}
						got := exportAll(t, open(t, Options{}, path), variant(t))
						if n := bytes.Count(got, []byte("\n__REALTIME_TIMESTAMP=")); n != 200 {
							t.Fatalf("%d entries of 200", n)
						}
						sameExport(t, got, journalctl(t, "-o", "export", "--file", path))
					})
				}
			}
		}
	}
}

// synthesize makes a file of n entries, every tenth of them with a big field.
func synthesize(t testing.TB, n int, compact, keyed bool, pack byte, sealed bool) *writer {
	w := newWriter(t, compact, keyed, pack, sealed)
	boot := ID{1, 2, 3, 4}
	for i := range uint64(n) {
		fields := []string{
			"MESSAGE=message number " + fmt.Sprint(i) + " " + words[i%uint64(len(words))],
			"_BOOT_ID=" + boot.String(), fmt.Sprintf("PRIORITY=%d", i%8), "_HOSTNAME=synthetic",
		}
		if i%10 == 0 {
			fields = append(fields, "STACK="+strings.Repeat(fmt.Sprintf("frame %d of it\n", i), 60))
		}
		w.add(1_780_000_000_000_000+i*1_000_003, 5_000_000+i*1_000_000, boot, fields...)
	}
	return w
}
