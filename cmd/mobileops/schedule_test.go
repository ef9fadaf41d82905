package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestCronRunsASchedule has Debian's cron run what integrity schedule wrote:
// in a mount namespace of its own, where /etc/cron.d is that of the test and
// the mailer writes what it is given to a file, and by a clock that stands
// three seconds before three in the morning.
func TestCronRunsASchedule(t *testing.T) {
	for _, tool := range []string{"cron", "faketime", "unshare"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("NOT RUN: whether cron runs a schedule: %s is not installed (apt-get install cron faketime; make test does)", tool)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: whether cron runs a schedule: it needs root to mount a directory over /etc/cron.d in a namespace of its own")
	}
	dir := t.TempDir()
	// cron works as root and others than root must not own the way there.
	for at := dir; at != os.TempDir() && at != "/"; at = filepath.Dir(at) {
		if err := os.Chmod(at, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mobileops := func(want int, args ...string) string {
		t.Helper()
		cmd := exec.Command("mobileops", args...)
		cmd.Env = append(os.Environ(), "MOBILEOPS_STATE_DIR="+filepath.Join(dir, "the state"), "MOBILEOPS_CONFIG="+filepath.Join(dir, "config.yaml"))
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Fatalf("%q: status %d, want %d: %s", args, got, want, out)
		}
		return string(out)
	}
	// Both checks run in the same minute, and one that gave up would be mailed, too.
	writeFile(t, filepath.Join(dir, "config.yaml"), "lock_timeout: 10m\n")
	writeFile(t, filepath.Join(dir, "clean/file"), "same")
	writeFile(t, filepath.Join(dir, "changed/file"), "before")
	root := filepath.Join(dir, "root")
	writeFile(t, filepath.Join(root, "etc/machine-id"), "0123456789abcdef0123456789abcdef\n")
	for _, name := range []string{"clean", "changed"} {
		mobileops(0, "integrity", "baseline", "--name", name, filepath.Join(dir, name))
		mobileops(0, "integrity", "schedule", "--daily", "03:00", "--name", name, "--rehash-sample", "5%", "--mail", name, "--cron", "--root", root)
	}
	writeFile(t, filepath.Join(dir, "changed/file"), "after it")

	// The program that cron hands mail to, and cron itself, in one directory
	// that stands for /usr/sbin.
	sbin := filepath.Join(dir, "sbin")
	cron, err := os.ReadFile("/usr/sbin/cron")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(sbin, "cron"), string(cron))
	writeFile(t, filepath.Join(sbin, "sendmail"), fmt.Sprintf("#!/bin/sh\ncat >'%s/mail.'$$ && mv '%s/mail.'$$ '%s/mailed.'$$\n", dir, dir, dir))
	for _, name := range []string{"cron", "sendmail"} {
		if err := os.Chmod(filepath.Join(sbin, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	empty := filepath.Join(dir, "empty")
	writeFile(t, filepath.Join(empty, "crontab"), "")
	script := fmt.Sprintf(`set -e
mount --bind '%[1]s/etc/cron.d' /etc/cron.d
mount --bind '%[2]s/crontab' /etc/crontab
mount -t tmpfs none /var/spool/cron
mkdir /var/spool/cron/crontabs
mount -t tmpfs none /run
mount -t tmpfs none /dev/shm # faketime leaves files named after its process there, and fails when it meets one
mount --bind '%[3]s' /usr/sbin
exec faketime -f '@2026-05-01 02:59:52' /usr/sbin/cron -f -L 15
`, root, empty, sbin)
	var log bytes.Buffer
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", script)
	cmd.Env = append(os.Environ(), "TZ=UTC", "NO_FAKE_STAT=1")
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop := func() {
		if !stopped {
			stopped = true
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			cmd.Wait()
		}
	}
	defer stop()

	// The run that finds a change is mailed; the clean one is in the record.
	var mails []string
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if mails, err = filepath.Glob(filepath.Join(dir, "mailed.*")); err != nil {
			t.Fatal(err)
		}
		if len(mails) > 0 && strings.Count(mobileops(0, "logs", "audit"), "integrity check") >= 2 {
			break
		}
	}
	time.Sleep(300 * time.Millisecond) // a second mail would come now
	stop()
	if mails, _ = filepath.Glob(filepath.Join(dir, "mailed.*")); len(mails) != 1 {
		t.Fatalf("%d mails; the record: %s; cron said: %s", len(mails), mobileops(0, "logs", "audit"), log.String())
	}
	mail, err := os.ReadFile(mails[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"To: changed\n", "mobileops integrity check --quiet --name changed --rehash-sample 5%", "changed/file"} {
		if !strings.Contains(string(mail), want) {
			t.Errorf("no %q in the mail:\n%s", want, mail)
		}
	}
	record := mobileops(0, "logs", "audit", "--output", "jsonl")
	for _, name := range []string{"clean", "changed"} {
		if !strings.Contains(record, "--name="+name) {
			t.Errorf("no check of %s in the record:\n%s", name, record)
		}
	}
}

// TestSystemdIsToldOfASchedule makes a host look as if systemd had booted it,
// in a mount namespace of its own, with a systemctl that writes down what it is
// told. That systemd itself then runs the timer is not shown: it is PID 1 on no
// machine that runs this test.
func TestSystemdIsToldOfASchedule(t *testing.T) {
	if _, err := exec.LookPath("unshare"); err != nil || os.Geteuid() != 0 {
		t.Skip("NOT RUN: what systemd is told: it needs root and unshare, to mount directories over /run and /etc/systemd in a namespace of its own")
	}
	if _, err := os.Stat("/etc/systemd/system"); err != nil {
		t.Skip("NOT RUN: what systemd is told: there is no /etc/systemd/system to put a directory of the test in place of (apt-get install systemd; make test does)")
	}
	t.Log("NOT RUN: that systemd runs the timer: none is PID 1 here; systemd-analyze verifies the units in internal/integrity/schedule")
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "config.yaml"), "# nothing is configured\n")
	writeFile(t, filepath.Join(dir, "bin/systemctl"), "#!/bin/sh\necho \"$*\" >>'"+dir+"/told'\n")
	if err := os.Chmod(filepath.Join(dir, "bin/systemctl"), 0o755); err != nil {
		t.Fatal(err)
	}
	script := `set -e
mount -t tmpfs none /etc/systemd/system
mount -t tmpfs none /run
mobileops integrity schedule --daily 03:00 --cron --print >/dev/null
test ! -e told
mkdir -p /run/systemd/system
mobileops integrity schedule --daily 03:00 --jitter 30m
mobileops integrity schedule --daily 03:00 --jitter 30m
mobileops integrity schedule list
ls /etc/systemd/system
mobileops integrity schedule remove integrity-check
test -z "$(ls /etc/systemd/system)"
`
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"),
		"MOBILEOPS_STATE_DIR="+filepath.Join(dir, "state"), "MOBILEOPS_CONFIG="+filepath.Join(dir, "config.yaml"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"\nScheduled: integrity-check", "\nAlready scheduled: integrity-check", "systemd  as written", "mobileops-integrity-check.service\nmobileops-integrity-check.timer\n"} {
		if !strings.Contains("\n"+string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(string(out), "Not in force yet") {
		t.Errorf("it says that systemd does not run:\n%s", out)
	}
	told, err := os.ReadFile(filepath.Join(dir, "told"))
	if err != nil {
		t.Fatal(err)
	}
	const start = "daemon-reload\nenable --now mobileops-integrity-check.timer\n"
	if want := start + start + "disable --now mobileops-integrity-check.timer\ndaemon-reload\n"; string(told) != want {
		t.Errorf("systemctl was told\n%swant\n%s", told, want)
	}
}
