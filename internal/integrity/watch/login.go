package watch

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
)

// loginPrograms are what root needs to log in and to end enforcement, as
// patterns of filepath.Match. Enforcement does not begin when it would deny one
// of those that exist.
func loginPrograms() []string {
	return []string{
		"/bin/sh", "/bin/bash", "/bin/dash", "/bin/busybox", "/usr/bin/sh", "/usr/bin/bash", "/usr/bin/dash", "/usr/bin/zsh", "/usr/bin/fish",
		"/usr/bin/busybox", "/usr/bin/login", "/bin/login", "/usr/sbin/agetty", "/sbin/agetty", "/usr/sbin/sulogin", "/sbin/sulogin",
		"/usr/bin/su", "/bin/su", "/usr/bin/sudo", "/usr/bin/doas", "/usr/bin/run0", "/usr/bin/pkexec", "/usr/sbin/unix_chkpwd", "/sbin/unix_chkpwd",
		"/usr/sbin/sshd", "/usr/lib/openssh/*", "/usr/libexec/openssh/*",
		"/usr/lib/systemd/systemd", "/usr/lib/systemd/systemd-executor", "/usr/lib/systemd/systemd-logind", "/usr/lib/systemd/systemd-sulogin-shell",
		"/lib/systemd/systemd", "/sbin/init", "/usr/sbin/init", "/usr/bin/systemctl", "/bin/systemctl",
		"/lib64/ld-linux*.so*", "/lib/ld-linux*.so*", "/lib/ld-musl-*.so*", "/lib/*/ld-linux*.so*",
	}
}

// preflight refuses to begin when a program that root needs to get in would be
// denied.
func (e *enforcer) preflight(points []*mount) error {
	t, err := readMounts(e.w.opened)
	if err != nil {
		return err
	}
	looked := map[string]bool{}
	for _, m := range points {
		looked[m.dev] = true
	}
	patterns := e.o.logins
	if patterns == nil {
		patterns = loginPrograms()
	}
	var denied []string
	done := map[string]bool{}
	for _, pattern := range patterns {
		list, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, path := range list {
			real, err := filepath.EvalSymlinks(path)
			if err != nil || done[real] || !looked[t.owner([]byte(real)).dev] {
				continue
			}
			done[real] = true
			if info, err := os.Stat(real); err != nil || !info.Mode().IsRegular() {
				continue
			}
			sum, _, err := hashFile(real)
			if err != nil {
				return err
			}
			if !e.allow.permits(sum) && !e.allow.below(real) {
				denied = append(denied, real)
			}
		}
	}
	if len(denied) == 0 {
		return nil
	}
	shown := denied[:min(len(denied), 8)]
	return failure.Hint(failure.Errorf(failure.NotReady, "enforcement would lock root out, so it does not begin: it would deny %s, whose content is not in the baseline", strings.Join(shown, ", ")),
		"check these files; when they are right, take a baseline that covers them, or add them: --allow-exec FILE, or mobileops integrity watch --learn")
}
