package parity

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The trees of installed systems. They hold as much as Trivy reads of one.

func debianTree(t testing.TB, dir string) string {
	return writeAll(t, dir, debian("12.11", map[string]string{
		// As in images without a package manager: one file a package.
		"var/lib/dpkg/status.d/tzdata":                                  stanza("tzdata", "2025a-0+deb12u1", "tzdata", "all"),
		"var/lib/dpkg/status.d/tzdata.md5sums":                          "0123456789abcdef0123456789abcdef  usr/share/zoneinfo/UTC\n",
		"var/lib/dpkg/status.d/base":                                    stanza("base-files", "12.4+deb12u11", "", "amd64"),
		"var/lib/dpkg/available":                                        "",
		"var/lib/dpkg/info/openssl.list":                                "/.\n/usr\n/usr/bin\n/usr/bin/openssl\n",
		"var/lib/dpkg/info/libc6:amd64.list":                            "/.\n/lib\n",
		"usr/share/doc/openssl/copyright":                               copyright("Apache-2.0"),
		"usr/share/doc/libc6/copyright":                                 "The library is free software under the GNU Lesser General Public License, see\n/usr/share/common-licenses/LGPL-2.1\n",
		"usr/share/doc/zlib1g/copyright":                                copyright("Zlib"),
		"usr/share/doc/tzdata/copyright":                                "This is in the public domain.\n",
		"usr/lib/python3/dist-packages/jinja2-3.1.2.dist-info/METADATA": "Metadata-Version: 2.1\nName: Jinja2\nVersion: 3.1.2\nLicense: BSD-3-Clause\n",
		"app/package-lock.json":                                         packageLock2,
		"app/node_modules/lodash/package.json":                          `{"name":"lodash","version":"4.17.4","license":"MIT"}`,
	}))
}

// oldDebianTree has no security updates any more.
func oldDebianTree(t testing.TB, dir string) string {
	return writeAll(t, dir, map[string]string{
		"etc/os-release":      "ID=debian\nVERSION_ID=\"10\"\nPRETTY_NAME=\"Debian GNU/Linux 10 (buster)\"\n",
		"etc/debian_version":  "10.13\n",
		"var/lib/dpkg/status": stanza("openssl", "1.1.1n-0+deb10u6", "", "amd64"),
	})
}

// debian is a Debian of a version with further files.
func debian(version string, more map[string]string) map[string]string {
	more["etc/os-release"] = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nID=debian\n"
	more["etc/debian_version"] = version + "\n"
	more["etc/hostname"] = "parity\n"
	more["var/lib/dpkg/status"] = strings.Join([]string{
		stanza("openssl", "3.0.16-1~deb12u1", "", "amd64"),
		stanza("libssl3", "3.0.16-1~deb12u1", "openssl", "amd64"),
		stanza("libc6", "2.36-9+deb12u10", "glibc", "amd64"),
		stanza("zlib1g", "1:1.2.13.dfsg-1", "zlib", "amd64"),
		strings.Replace(stanza("docker-ce", "5:28.0.0-1~debian.12~bookworm", "openssl", "amd64"), "Somebody <somebody@example.com>", "Docker <support@docker.com>", 1),
		stanza("liblist-perl", "1.5-3+b2", "liblist-perl (1.5-3)", "amd64"),
		strings.Replace(stanza("removed", "1.0-1", "openssl", "amd64"), "install ok installed", "deinstall ok config-files", 1),
	}, "\n")
	return more
}

func stanza(name, version, source, arch string) string {
	s := fmt.Sprintf("Package: %s\nStatus: install ok installed\nPriority: optional\nSection: utils\nInstalled-Size: 2291\nMaintainer: Somebody <somebody@example.com>\nArchitecture: %s\nMulti-Arch: foreign\n", name, arch)
	if source != "" {
		s += "Source: " + source + "\n"
	}
	return s + "Version: " + version + "\nDepends: libc6 (>= 2.34), libssl3 (>= 3.0.9) | libssl4\nDescription: what it is\n more about it\n .\n and more\n"
}

func copyright(license string) string {
	return "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: x\n\nFiles: *\nCopyright: 1998-2026 Somebody\nLicense: " + license + "\n"
}

func ubuntuTree(t testing.TB, dir string) string {
	return writeAll(t, dir, map[string]string{
		"etc/os-release":  "PRETTY_NAME=\"Ubuntu 24.04.2 LTS\"\nNAME=\"Ubuntu\"\nVERSION_ID=\"24.04\"\nID=ubuntu\nID_LIKE=debian\n",
		"etc/lsb-release": "DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=24.04\nDISTRIB_CODENAME=noble\n",
		"var/lib/dpkg/status": strings.Join([]string{
			stanza("openssl", "3.0.13-0ubuntu3.5", "", "amd64"), stanza("libssl3t64", "3.0.13-0ubuntu3.5", "openssl", "amd64"),
			stanza("bash", "5.2.21-2ubuntu4", "", "amd64"),
		}, "\n"),
		"usr/share/doc/bash/copyright": copyright("GPL-3+"),
	})
}

func alpineTree(t testing.TB, dir string) string {
	return writeAll(t, dir, map[string]string{
		"etc/os-release":       "NAME=\"Alpine Linux\"\nID=alpine\nVERSION_ID=3.22.1\n",
		"etc/alpine-release":   "3.22.1\n",
		"etc/apk/repositories": "https://dl.example.com/alpine/v3.22/main\nhttps://dl.example.com/alpine/v3.22/community\n",
		"lib/apk/db/installed": "C:Q1qKcZ+j23xssAXmgQhkOO8dHnbWw=\nP:libcrypto3\nV:3.5.1-r0\nA:x86_64\nS:1782424\nI:4587520\nT:Crypto library from openssl\nU:https://www.openssl.org/\nL:Apache-2.0\no:openssl\nm:Somebody <s@example.com>\nt:1\nc:abc\nD:so:libc.musl-x86_64.so.1\np:so:libcrypto.so.3=3\nF:usr/lib\nR:libcrypto.so.3\na:0:0:755\nZ:Q1x=\n\n" +
			"C:Q1qKcZ+j23xssAXmgQhkOO8dHnbWx=\nP:busybox\nV:1.37.0-r18\nA:x86_64\nL:GPL-2.0-only\no:busybox\nD:so:libc.musl-x86_64.so.1\np:cmd:sh=1\nF:bin\nR:busybox\n\n" +
			"P:musl\nV:1.2.5-r10\nA:x86_64\nL:MIT\no:musl\np:so:libc.musl-x86_64.so.1=1\nF:lib\nR:ld-musl-x86_64.so.1\n\n",
	})
}

// rpmTree has a package database that rpm itself wrote.
func rpmTree(t testing.TB, dir, release string) string {
	t.Helper()
	build, rpm := tool(t, "rpmbuild"), tool(t, "rpm")
	top := t.TempDir()
	// What somebody else has packed is not looked up.
	vendor := map[string]string{"rocky": "Rocky Enterprise Software Foundation", "centos": "CentOS", "fedora": "Somebody"}[release]
	version := map[string]string{"rocky": "9.5", "centos": "8.4.2105", "fedora": "44"}[release]
	const backend = "sqlite" // Debian's rpm writes no other
	spec := write(t, top, "parity.spec", `Name: parity-tool
Epoch: 1
Version: 1.5
Release: 2.el9
Summary: A tool
License: MIT and GPLv2+
Vendor: `+vendor+`
BuildArch: noarch
%description
A tool.
%package -n parity-lib
Summary: A library
License: ASL 2.0
Epoch: 0
Version: 3
%description -n parity-lib
A library.
%install
mkdir -p %{buildroot}/usr/share/parity
echo 1 >%{buildroot}/usr/share/parity/tool
echo 2 >%{buildroot}/usr/share/parity/lib
%files
/usr/share/parity/tool
%files -n parity-lib
/usr/share/parity/lib
`)
	run := func(line ...string) {
		t.Helper()
		cmd := exec.Command(line[0], line[1:]...)
		cmd.Env = append(os.Environ(), "HOME="+top, "LC_ALL=C")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", line, err, out)
		}
	}
	run(build, "-bb", "--define", "_topdir "+top, "--define", "_db_backend "+backend, spec)
	packages, err := filepath.Glob(filepath.Join(top, "RPMS", "noarch", "*.rpm"))
	if err != nil || len(packages) != 2 {
		t.Fatalf("rpmbuild made %q: %v", packages, err)
	}
	db := filepath.Join(dir, "var", "lib", "rpm")
	if err := os.MkdirAll(db, 0o755); err != nil {
		t.Fatal(err)
	}
	run(append([]string{rpm, "--define", "_db_backend " + backend, "--dbpath", db, "--justdb", "--nodeps", "--noscripts", "--ignorearch", "--ignoreos", "--nosignature", "-i"}, packages...)...)
	return writeAll(t, dir, map[string]string{
		"etc/os-release":     "NAME=\"A Linux\"\nID=\"" + release + "\"\nVERSION_ID=\"" + version + "\"\n",
		"etc/redhat-release": map[string]string{"rocky": "Rocky Linux release " + version + " (Blue Onyx)\n", "centos": "CentOS Linux release " + version + "\n", "fedora": "Fedora release " + version + " (Forty Four)\n"}[release],
	})
}
