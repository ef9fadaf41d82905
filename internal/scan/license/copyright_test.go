package license

import (
	"slices"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/scan/protocol"
)

func TestCopyrights(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []string
	}{
		{"Copyright (c) 2019 A. Author", []string{"Copyright (c) 2019 A. Author"}},
		{" * Copyright 2019, 2020 The Go Authors. All rights reserved.\n * Use of this", []string{"Copyright 2019, 2020 The Go Authors. All rights reserved."}},
		{"# © 2020 Firma GmbH\n", []string{"© 2020 Firma GmbH"}},
		{"// SPDX-FileCopyrightText: 2021 Somebody <s@example.org>\n", nil},
		{"// SPDX-FileCopyrightText: Copyright 2021 Somebody <s@example.org>\n", []string{"Copyright 2021 Somebody <s@example.org>"}},
		{"/* (C) 1998 B. Author */", []string{"(C) 1998 B. Author"}},
		{"Copyright (C) 1995 A\n     2000, 2001, B. Author <b@example.org>\n2003.txt\n", []string{"Copyright (C) 1995 A", "2000, 2001, B. Author <b@example.org>"}},
		{"Copyright \xa9 2001 M\xfcller\n", []string{"Copyright © 2001 Müller"}},
		{"Copyright 2020 A\nCopyright 2020 A\n", []string{"Copyright 2020 A"}},
		{"Portions copyright (c) 2003 C", []string{"Portions copyright (c) 2003 C"}},
		// No statement at all.
		{"The above copyright notice and this permission notice", nil},
		{"Copyright [yyyy] [name of copyright owner]", nil},
		{"Copyright (c) <year> <owner>", nil},
		{"copyright holders and contributors 2020", nil},
		{"(c) the third point of a list", nil},
		{"   (c) You must retain", nil},
		{"copyrighted 1999 by nobody", nil},
		{" Copyright (C) 2007 Free Software Foundation, Inc.\n Everyone is permitted to copy and distribute verbatim copies\n", nil},
		{"Copyright 2020 \x1b[31mred", nil},
		{"", nil},
	} {
		if got := Copyrights([]byte(c.in)); !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.in, got, c.want)
		}
	}
	many := strings.Repeat("x", 2000) + "\n"
	for i := range 1000 {
		many += "Copyright 2020 Nr. " + strings.Repeat("y", i) + "\n"
	}
	got := Copyrights([]byte(many))
	if len(got) != maxCopyrightLines {
		t.Errorf("%d lines", len(got))
	}
	for _, l := range got {
		if len(l) > maxCopyrightLine+4 {
			t.Errorf("a line of %d bytes", len(l))
		}
	}
}

func TestKindOf(t *testing.T) {
	for kind, names := range map[protocol.NoticeKind][]string{
		protocol.NoticeLicense: {
			"LICENSE", "a/LICENCE", "license.txt", "License.md", "COPYING", "COPYING.LESSER", "COPYING3", "copying.lib", "LICENSE-MIT", "LICENSE_APACHE", "LICENSE-APACHE-2.0.txt", "LICENSE.MIT",
			"LICENSE.apache-2.0", "MIT-LICENSE.txt", "LICENSES/GPL-2.0-only.txt", "UNLICENSE", "COPYRIGHT", "Copyright.txt", "x-1.0.dist-info/licenses/whatever.txt", "usr/share/licenses/bash/COPYING", "EULA.txt", "LICENSE.BSD3",
		},
		protocol.NoticeNotice:    {"NOTICE", "NOTICE.txt", "ThirdPartyNotices.txt", "THIRD-PARTY-NOTICES.md", "AUTHORS", "PATENTS"},
		protocol.NoticeCopyright: {"usr/share/doc/bash/copyright", "x/debian/copyright"},
		protocol.NoticeCommon:    {"usr/share/common-licenses/GPL-2"},
		"": {
			"license.go", "licensed.txt", "src/license_test.py", "LICENSE.json", "copy.txt", "main.c", "COPYINGS.go", "usr/share/doc/bash/examples/x", "noticeboard.txt", "README.md", "license.tmpl", "LICENSE.png",
			"author.txt", ".LICENSE.swp",
		},
	} {
		for _, n := range names {
			if got := KindOf(n); got != kind {
				t.Errorf("%s is %q, want %q", n, got, kind)
			}
		}
	}
}

func TestTag(t *testing.T) {
	for in, want := range map[string]string{
		"// SPDX-License-Identifier: MIT\n":                                     "MIT",
		"/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) */\n":    "GPL-2.0-only WITH Linux-syscall-note",
		"#!/bin/sh\n# SPDX-License-Identifier: Apache-2.0 OR MIT\n":             "Apache-2.0 OR MIT",
		"<!-- SPDX-License-Identifier: CC-BY-4.0 -->":                           "CC-BY-4.0",
		"# SPDX-License-Identifier: MIT\n# SPDX-License-Identifier: Zlib\n":     "MIT AND Zlib",
		"Put a line \"SPDX-License-Identifier: MIT\" into each file":            "",
		"// SPDX-License-Identifier: Whatever\n":                                "",
		"// SPDX-License-Identifier: LicenseRef-ours":                           "LicenseRef-ours",
		"// SPDX-License-Identifier: MIT AND\n":                                 "",
		strings.Repeat("\n", tagBytes) + "// SPDX-License-Identifier: MIT\n":    "",
		"rem SPDX-License-Identifier: MIT\r\ndir":                               "MIT",
		"\t.. SPDX-License-Identifier: BSD-2-Clause\nx SPDX-License-Identifier": "BSD-2-Clause",
	} {
		if got := Tag([]byte(in)).String(); got != want {
			t.Errorf("%.80q: %q, want %q", in, got, want)
		}
	}
}

func FuzzCopyrights(f *testing.F) {
	for _, s := range []string{"Copyright (c) 2019 A\n 2020, B\n", "\xa9 2001", "(c) 2001", "Copyright\n", "dnl Copyright 2000\nSPDX-License-Identifier: MIT", "© 199", "copyright: © 1\n1999–2000"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		for _, l := range Copyrights(content) {
			if l == "" || len(l) > maxCopyrightLine+4 || strings.ContainsAny(l, "\n\x1b") {
				t.Fatalf("%q", l)
			}
		}
		Tag(content)
	})
}
