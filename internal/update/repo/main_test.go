package repo

import (
	"os"
	"testing"
)

// TestMain keeps the directories of the tests in memory where that is possible:
// hundreds of small durable writes would wait for the disk, and no test here
// cuts the power. The processes that tests start and kill use what they inherit.
func TestMain(m *testing.M) {
	if os.Getenv("REPO_TEST_HOST")+os.Getenv("REPO_TEST_PUBLISH") != "" {
		os.Exit(m.Run())
	}
	if dir, err := os.MkdirTemp("/dev/shm", "repo-test-"); err == nil {
		os.Setenv("TMPDIR", dir)
		code := m.Run()
		os.RemoveAll(dir)
		os.Exit(code)
	}
	os.Exit(m.Run())
}
