package main

import (
	"fmt"
	"log"
	"os"
	"slices"
	"strings"
)

var formats = []string{"zst", "gz"}

// makeKey makes a key that signs, and trusts it.
func (b *bench) makeKey() error {
	if err := os.Mkdir(b.at("keys"), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(b.at("key"), 0o700); err != nil {
		return err
	}
	return b.do(
		[]string{b.mobileops, "update", "key", "generate", b.at("key", "k"), "--no-password"},
		[]string{b.mobileops, "update", "key", "add", b.at("key", "k.pub")})
}

// packages packs the versions.
func (b *bench) packages() error {
	manifest := b.at("full.yaml")
	if err := os.WriteFile(manifest, []byte("schema: mobileops.package/v1\nname: app\nkind: full\n"), 0o644); err != nil {
		return err
	}
	pack := func(tree, to, sequence string, more ...string) []string {
		return append([]string{b.mobileops, "update", "pack", b.at(tree), b.at(to), "--name", "app", "--version", sequence, "--sequence", sequence, "--sign", b.at("key", "k.key")}, more...)
	}
	err := b.do(pack(version1, "v1.tar.zst", "1", "--manifest", manifest))
	for _, f := range formats {
		if err == nil {
			err = b.do(pack(version2, "full.tar."+f, "2", "--manifest", manifest), pack(overlay, "overlay.tar."+f, "2"))
		}
	}
	if err != nil {
		return err
	}
	// What a package holds is the same to everybody.
	return b.do([]string{b.mobileops, "update", "apply", b.at("v1.tar.zst")}, []string{"rm", b.at("v1.tar.zst"), b.at("v1.tar.zst.minisig")})
}

// sides lists all ways to apply.
func (b *bench) sides() error {
	b.ours()
	b.script()
	for _, side := range []struct {
		programs []string
		add      func() error
	}{{[]string{"ostree"}, b.ostree}, {[]string{"dpkg", "dpkg-deb"}, b.dpkg}} {
		if slices.ContainsFunc(side.programs, func(p string) bool { return !b.has(p) }) {
			continue
		}
		if side.programs[0] == "dpkg" && !b.wants("apply") {
			continue // it keeps one version, and packing is slow
		}
		if err := side.add(); err != nil {
			b.missing[side.programs[0]] = err.Error()
		}
	}
	if b.names != nil {
		b.ways = slices.DeleteFunc(b.ways, func(w *way) bool {
			return !slices.ContainsFunc(b.names, func(n string) bool { return strings.Contains(w.name(), n) })
		})
	}
	return nil
}

func (b *bench) add(w *way) { b.ways = append(b.ways, w) }

// both calls add for every kind and format of package.
func (b *bench) both(add func(kind, format, pkg string)) {
	for _, kind := range []string{"full", "overlay"} {
		for _, f := range formats {
			add(kind, f, b.at(kind+".tar."+f))
		}
	}
}

// forget goes back to where version 1 is current, and alone.
func (b *bench) forget() error {
	return b.do([]string{b.mobileops, "rollback", "--to", "1"}, []string{b.mobileops, "update", "prune", "--keep", "0"})
}

func (b *bench) ours() {
	b.both(func(kind, format, pkg string) {
		b.add(&way{who: "mobileops", kind: kind, format: format, line: []string{b.mobileops, "update", "apply", pkg}, made: b.at("opt", "app"), clean: b.forget})
	})
}

// script is what the shell script did.
func (b *bench) script() {
	prepare := func() error {
		return b.do([]string{"mkdir", b.at("script")}, []string{"cp", "-a", b.at(version1), b.at("script", "app")})
	}
	clean := func() error { return os.RemoveAll(b.at("script")) }
	b.both(func(kind, format, pkg string) {
		line := "cd script; cp -a app backup; mkdir tmp; tar xf '" + pkg + "' -C tmp; cp -a tmp/. app"
		b.add(&way{who: "script", kind: kind, format: format, prepare: prepare, line: b.sh(line), made: b.at("script", "app"), clean: clean})
		b.add(&way{who: "script+sync", kind: kind, format: format, prepare: prepare, line: b.sh(line + "; sync -f app"), made: b.at("script", "app"), clean: clean})
	})
}

// ostree reads a package itself, or commits the directory that tar has made of
// it. Both end in a tree of hard links.
func (b *bench) ostree() error {
	repo := b.at("ostree")
	if err := b.do(
		[]string{"ostree", "--repo=" + repo, "init", "--mode=bare"},
		[]string{"ostree", "--repo=" + repo, "commit", "-b", version1, "-s", version1, "--tree=dir=" + b.at(version1)},
		[]string{"mkdir", b.at("checkout")},
		[]string{"ostree", "--repo=" + repo, "checkout", "-H", version1, b.at("checkout", version1)},
	); err != nil {
		return err
	}
	clean := func() error {
		return b.do([]string{"rm", "-rf", b.at("checkout", version2), b.at("checkout", "tmp")},
			[]string{"ostree", "--repo=" + repo, "refs", "--delete", version2},
			[]string{"ostree", "--repo=" + repo, "prune", "--refs-only", "--depth=0"})
	}
	b.both(func(kind, format, pkg string) {
		commit := "ostree --repo='" + repo + "' commit -b v2 -s v2 "
		if kind == "overlay" {
			commit += "--base=v1 "
		}
		checkout := "ostree --repo='" + repo + "' checkout -H v2 checkout/v2"
		b.add(&way{who: "ostree from tar", kind: kind, format: format, made: b.at("checkout", version2), clean: clean,
			line: b.sh(commit + "--tar-autocreate-parents --tree=tar='" + pkg + "'; " + checkout)})
		b.add(&way{who: "ostree from dir", kind: kind, format: format, made: b.at("checkout", version2), clean: clean,
			line: b.sh("mkdir checkout/tmp; tar xf '" + pkg + "' -C checkout/tmp; " + commit + "--consume --tree=dir=checkout/tmp; " + checkout)})
	})
	return nil
}

// dpkg upgrades from version 1 to version 2. A package of Debian is packed with
// xz, here at level 1, for at Debian's level packing takes minutes; unpacking takes
// about as long. zstd is the fastest to unpack that dpkg knows.
func (b *bench) dpkg() error {
	control := func(version string) string {
		return "Package: app\nVersion: " + version + "\nArchitecture: all\nMaintainer: Nobody <nobody@example.com>\nDescription: a package\n"
	}
	build := func(tree, version, to string, how ...string) error {
		if err := os.MkdirAll(b.at("deb", "DEBIAN"), 0o755); err != nil {
			return err
		}
		if err := os.MkdirAll(b.at("deb", "opt"), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(b.at("deb", "DEBIAN", "control"), []byte(control(version)), 0o644); err != nil {
			return err
		}
		return b.do([]string{"cp", "-al", b.at(tree), b.at("deb", "opt", "app")},
			append(append([]string{"dpkg-deb", "--root-owner-group"}, how...), "--build", b.at("deb"), b.at(to)),
			[]string{"rm", "-rf", b.at("deb")})
	}
	root := b.at("debian")
	install := []string{"dpkg", "--root=" + root, "--log=/dev/null", "--force-not-root", "--force-script-chrootless"}
	if err := os.MkdirAll(b.at("debian", "var", "lib", "dpkg", "updates"), 0o755); err != nil {
		return err
	}
	if err := os.MkdirAll(b.at("debian", "var", "lib", "dpkg", "info"), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(b.at("debian", "var", "lib", "dpkg", "status"), nil, 0o644); err != nil {
		return err
	}
	log.Print("making packages for dpkg, which takes a minute")
	if err := build(version1, "1", "v1.deb", "-Znone"); err != nil {
		return err
	}
	// What dpkg knows of version 1 is kept, and its files are copied each time.
	if err := b.do(append(slices.Clone(install), "--force-unsafe-io", "--install", b.at("v1.deb")),
		[]string{"rm", "-r", b.at("v1.deb"), b.at("debian", "opt", "app")},
		[]string{"mv", b.at("debian", "var", "lib", "dpkg"), b.at("known")}); err != nil {
		return err
	}
	prepare := func() error {
		return b.do([]string{"cp", "-a", b.at("known"), b.at("debian", "var", "lib", "dpkg")},
			[]string{"cp", "-a", b.at(version1), b.at("debian", "opt", "app")})
	}
	clean := func() error {
		return b.do([]string{"rm", "-r", b.at("debian", "var", "lib", "dpkg"), b.at("debian", "opt", "app")})
	}
	for _, format := range []string{"xz", "zst"} {
		pkg := fmt.Sprintf("v2-%s.deb", format)
		how := []string{"-Zxz", "-z1"}
		if format == "zst" {
			how = []string{"-Zzstd", "-z3"}
		}
		if err := build(version2, "2", pkg, how...); err != nil {
			return err
		}
		w := way{who: "dpkg", kind: "full", format: format, prepare: prepare, made: b.at("debian", "opt", "app"), clean: clean,
			line: append(slices.Clone(install), "--install", b.at(pkg))}
		b.add(&w)
		unsafe := w
		unsafe.who, unsafe.line = "dpkg+unsafe-io", append(slices.Clone(install), "--force-unsafe-io", "--install", b.at(pkg))
		b.add(&unsafe)
	}
	return nil
}

// applies measures all ways.
func (b *bench) applies() error {
	for round := range b.rounds {
		for _, w := range b.ways {
			if err := b.round(w, round == 0); err != nil {
				return fmt.Errorf("%s: %w", w.name(), err)
			}
			s := w.runs[round]
			log.Printf("round %d of %d: %-30s %6.2f s, %6.2f s of processor time", round+1, b.rounds, w.name(), s.wall.Seconds(), s.cpu.Seconds())
		}
	}
	return nil
}
