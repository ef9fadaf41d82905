package block

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// living is where /proc tells about a process. That is /proc/PID as long as its
// first thread lives. One that has ended before the others has neither a network
// nor descriptors any more, and is in no control group that matters: then it is
// where /proc tells about one of those. The error is fs.ErrNotExist when none is
// left, also while nobody has asked how the process ended.
func living(pid int) (string, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	ended, err := hasEnded(dir)
	if err != nil || !ended {
		return dir, err
	}
	threads, err := filepath.Glob(dir + "/task/[0-9]*")
	for _, thread := range threads {
		if ended, err := hasEnded(thread); err == nil && !ended {
			return thread, nil
		}
	}
	if err == nil {
		err = fs.ErrNotExist
	}
	return "", err
}

// hasEnded tells whether a thread, by its directory in /proc, runs no more.
func hasEnded(dir string) (bool, error) {
	b, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return false, err
	}
	_, after, _ := strings.Cut(string(b[strings.LastIndexByte(string(b), ')')+1:]), " ")
	return strings.HasPrefix(after, "Z") || strings.HasPrefix(after, "X"), nil
}
