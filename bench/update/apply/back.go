package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

const backRounds = 101 // of what takes milliseconds

// rollbacks measures ways to go back to version 1. ostree has no command that
// switches a directory that is no deployment, so its way back is a checkout of
// version 1; the script's was to remove the installation and copy the backup.
func (b *bench) rollbacks() error {
	if err := b.do([]string{b.mobileops, "update", "apply", b.at("full.tar.zst")}); err != nil {
		return err
	}
	floor := &way{who: "true(1)", line: []string{"true"}}
	ours := &way{who: "mobileops rollback", line: []string{b.mobileops, "rollback"}, clean: func() error {
		return b.do([]string{b.mobileops, "rollback", "--to", "2"})
	}}
	for range backRounds {
		for _, w := range []*way{floor, ours} {
			if err := b.round(w, false); err != nil {
				return err
			}
		}
	}
	b.back["floor"], b.back["mobileops"] = floor, ours
	script := &way{who: "script: rm -rf app; cp -a backup app", line: b.sh("cd script; rm -rf app; cp -a backup app"),
		prepare: func() error {
			return b.do([]string{"mkdir", b.at("script")}, []string{"cp", "-a", b.at(version2), b.at("script", "app")}, []string{"cp", "-a", b.at(version1), b.at("script", "backup")})
		},
		clean: func() error { return os.RemoveAll(b.at("script")) }}
	ways := []*way{script}
	b.back["script"] = script
	if _, missing := b.missing["ostree"]; !missing {
		ostree := &way{who: "ostree checkout -H v1", line: []string{"ostree", "--repo=" + b.at("ostree"), "checkout", "-H", version1, b.at("checkout", "back")},
			clean: func() error { return os.RemoveAll(b.at("checkout", "back")) }}
		ways = append(ways, ostree)
		b.back["ostree"] = ostree
	}
	for range b.rounds {
		for _, w := range ways {
			if err := b.round(w, false); err != nil {
				return err
			}
		}
	}
	return nil
}

// occupied measures what both versions take.
func (b *bench) occupied() error {
	for _, v := range []string{version1, version2} { // both are whole, as in copies
		n, err := occupies(b.at(v))
		if err != nil {
			return err
		}
		b.disk["copies"] += n
	}
	for _, kind := range []string{"full", "overlay"} {
		if err := b.do([]string{b.mobileops, "update", "apply", b.at(kind + ".tar.zst")}); err != nil {
			return err
		}
		n, err := occupies(b.at("opt", "app.store"))
		if err != nil {
			return err
		}
		b.disk["mobileops "+kind] = n
		if err := b.forget(); err != nil {
			return err
		}
	}
	if _, missing := b.missing["ostree"]; missing {
		return nil
	}
	repo := "--repo=" + b.at("ostree")
	if err := b.do([]string{"ostree", repo, "commit", "-b", version2, "-s", version2, "--tree=dir=" + b.at(version2)},
		[]string{"ostree", repo, "checkout", "-H", version2, b.at("checkout", version2)}); err != nil {
		return err
	}
	n, err := occupies(b.at("ostree"), b.at("checkout"))
	b.disk["ostree"] = n
	return errors.Join(err, b.do([]string{"rm", "-r", b.at("checkout", version2)}, []string{"ostree", repo, "refs", "--delete", version2},
		[]string{"ostree", repo, "prune", "--refs-only", "--depth=0"}))
}

// occupies counts the blocks of directories, as du(1) does: an inode once.
func occupies(dirs ...string) (bytes int64, err error) {
	seen := map[uint64]bool{}
	for _, d := range dirs {
		err = errors.Join(err, filepath.WalkDir(d, func(p string, _ fs.DirEntry, err error) error {
			var st syscall.Stat_t
			if err == nil {
				err = syscall.Lstat(p, &st)
			}
			if err == nil && !seen[st.Ino] {
				seen[st.Ino] = true
				bytes += st.Blocks * 512
			}
			return err
		}))
	}
	return bytes, err
}
