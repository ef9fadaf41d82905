package parity

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fake returns letters that look random, and are the same each time.
func fake(alphabet string, n int, seed uint32) string {
	var b strings.Builder
	for range n {
		seed = seed*1664525 + 1013904223
		b.WriteByte(alphabet[int(seed>>16)%len(alphabet)])
	}
	return b.String()
}

const (
	upper = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	alnum = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	hexa  = "0123456789abcdef"
)

// secretTree has secrets that are none, put together here so that whoever searches
// this repository for secrets finds none.
func secretTree(t testing.TB, dir string) string {
	t.Helper()
	key := "AKI" + "A" + fake(upper, 16, 1)
	github := "gh" + "p_" + fake(alnum, 36, 2)
	gitlab := "glp" + "at-" + fake(alnum, 20, 3)
	slack := "xo" + "xb-" + fake("0123456789", 12, 4) + "-" + fake("0123456789", 12, 5) + "-" + fake(alnum, 24, 6)
	stripe := "sk_" + "live_" + fake(alnum, 24, 7)
	private := "-----BEGIN RSA PRI" + "VATE KEY-----\n" + wrapped(fake(alnum+"+/", 600, 8)) + "-----END RSA PRI" + "VATE KEY-----\n"
	encoded := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	jwt := "ey" + encoded(`{"alg":"HS256","typ":"JWT"}`)[2:] + "." + encoded(`{"sub":"1234567890","name":"somebody"}`) + "." + fake(alnum, 43, 9)
	long := strings.Repeat("nothing of interest in this line, whatever it says\n", 6000)
	writeAll(t, dir, map[string]string{
		"config/aws.env":           "AWS_ACCESS_KEY_ID=" + key + "\nAWS_SECRET_ACCESS_KEY=\"" + fake(alnum+"+/", 40, 10) + "\"\n",
		"src/main.py":              "import os\n\nTOKEN = '" + github + "'\nOTHER = '" + gitlab + "'\n",
		"src/several.js":           "const a = \"" + slack + "\"; const b = \"" + stripe + "\";\n\n\nconst c = \"" + slack + "\";\n",
		"keys/id_rsa":              private,
		"keys/two.pem":             private + "\nand again\n" + private,
		"deploy/token.txt":         "Authorization: Bearer " + jwt + "\n",
		"deploy/windows.ini":       "[x]\r\nkey=" + key + "\r\nother=1\r\n",
		"deploy/noeol":             "token " + github,
		"deploy/long.log":          long + "token=" + github + "\n" + long + "aws_access_key_id = " + key + "\n" + long,
		"deploy/oneline.json":      `{"a":"` + strings.Repeat("x", 70000) + `","token":"` + gitlab + `","b":"` + strings.Repeat("y", 70000) + `"}`,
		"deploy/docker.json":       `{"auths":{"registry.example.com":{"auth":"` + base64.StdEncoding.EncodeToString([]byte("user:"+fake(alnum, 20, 11))) + `"}}}`,
		"deploy/heroku.yaml":       "x: 1\n heroku_key: '" + strings.ToUpper(fake(hexa, 8, 12)+"-"+fake(hexa, 4, 13)+"-"+fake(hexa, 4, 14)+"-"+fake(hexa, 4, 15)+"-"+fake(hexa, 12, 16)) + "'\n",
		"deploy/facebook.conf":     "facebook_secret = '" + fake(hexa, 32, 17) + "'\n",
		"deploy/slack-hook.txt":    "https://hooks.slack" + ".com/services/" + fake(alnum, 44, 18) + "\n",
		"deploy/uni\u00efcode.txt": "\ufeffgr\u00fc\u00dfe " + key + " ende\n",
		// Those below are none, by rule: paths that are allowed, binaries, short files.
		"README.md":                "token " + github + "\n",
		"src/test/main_test.py":    "TOKEN = '" + github + "'\n",
		"examples/example.env":     "AWS_ACCESS_KEY_ID=" + key + "\n",
		"pkg/vendor/lib/token.txt": "token " + github + "\n",
		"bin/blob":                 "\x7fELF\x00\x01\x02" + github + strings.Repeat("\x00\x01", 500),
		"image.png":                "\x89PNG\r\n\x1a\n" + github,
		"tiny":                     "x=1",
		"empty":                    "",
		"go.sum":                   "token " + github + "\n",
		"node_modules/x/index.js":  "const t = '" + github + "'\n",
		".git/config":              "[remote]\nurl = https://x:" + github + "@git.example.com/x\n",
	})
	if err := os.Symlink("main.py", filepath.Join(dir, "src", "link.py")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func wrapped(s string) string {
	var b strings.Builder
	for len(s) > 64 {
		b.WriteString(s[:64] + "\n")
		s = s[64:]
	}
	return b.String() + s + "\n"
}

// ownRules are in the format of Trivy's secret configuration.
const ownRules = `rules:
  - id: own-rule
    category: own
    title: Our own
    severity: CRITICAL
    keywords: [parity_]
    regex: parity_(?P<secret>[a-z]{8})
    secret-group-name: secret
  - id: no-keywords
    category: own
    title: Without keywords
    severity: LOW
    regex: 'zz[0-9]{6}zz'
    allow-rules:
      - id: not-zeros
        description: zeros
        regex: zz000000zz
  - id: by-path
    category: own
    title: By path
    severity: MEDIUM
    path: \.own$
    regex: 'own=(?P<secret>[^\s]+)'
    secret-group-name: secret
disable-rules:
  - github-pat
disable-allow-rules:
  - markdown
exclude-block:
  description: a block
  regexes:
    - "--- begin ignored ---(.|\\s)*--- end ignored ---"
`

func ownRulesTree(t testing.TB, dir string) string {
	secretTree(t, dir)
	return writeAll(t, dir, map[string]string{
		"own/a.txt": "parity_" + "abcdefgh and zz" + "123456zz and zz" + "000000zz\n--- begin ignored ---\nparity_" + "hgfedcba\n--- end ignored ---\n",
		"own/b.own": "own=" + fake(alnum, 12, 20) + "\nother=1\n",
		"own/b.txt": "own=" + fake(alnum, 12, 20) + "\n",
		"notes.md":  "this is parity_" + "mnopqrst\n",
	})
}

const mit = `MIT License

Copyright (c) 2026 Somebody

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
`

const bsd = `Copyright 2026 Somebody

Redistribution and use in source and binary forms, with or without
modification, are permitted provided that the following conditions are met:

1. Redistributions of source code must retain the above copyright notice, this
list of conditions and the following disclaimer.

2. Redistributions in binary form must reproduce the above copyright notice,
this list of conditions and the following disclaimer in the documentation
and/or other materials provided with the distribution.

3. Neither the name of the copyright holder nor the names of its contributors
may be used to endorse or promote products derived from this software without
specific prior written permission.

THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS "AS IS" AND
ANY EXPRESS OR IMPLIED WARRANTIES, INCLUDING, BUT NOT LIMITED TO, THE IMPLIED
WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A PARTICULAR PURPOSE ARE
DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT HOLDER OR CONTRIBUTORS BE LIABLE
FOR ANY DIRECT, INDIRECT, INCIDENTAL, SPECIAL, EXEMPLARY, OR CONSEQUENTIAL
DAMAGES (INCLUDING, BUT NOT LIMITED TO, PROCUREMENT OF SUBSTITUTE GOODS OR
SERVICES; LOSS OF USE, DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER
CAUSED AND ON ANY THEORY OF LIABILITY, WHETHER IN CONTRACT, STRICT LIABILITY,
OR TORT (INCLUDING NEGLIGENCE OR OTHERWISE) ARISING IN ANY WAY OUT OF THE USE
OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE.
`

const apacheHeader = `Licensed under the Apache License, Version 2.0 (the "License");
you may not use this file except in compliance with the License.
You may obtain a copy of the License at

    http://www.apache.org/licenses/LICENSE-2.0

Unless required by applicable law or agreed to in writing, software
distributed under the License is distributed on an "AS IS" BASIS,
WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
See the License for the specific language governing permissions and
limitations under the License.
`

func commented(s string) string {
	return "// Copyright 2026 Somebody\n//\n// " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n// ") + "\n\n"
}

func licenseTree(t testing.TB, dir string) string {
	return writeAll(t, dir, map[string]string{
		"LICENSE":                 mit,
		"third/LICENSE.txt":       bsd,
		"third/both.txt":          mit + "\n\n" + bsd,
		"src/a.js":                commented(apacheHeader) + "export default 1\n",
		"src/a.py":                strings.ReplaceAll(commented(apacheHeader), "//", "#") + "print(1)\n",
		"src/plain.c":             "int main(void) { return 0; }\n",
		"src/binary.txt":          "\x00\x01\x02" + mit,
		"node_modules/x/LICENSE":  mit,
		"usr/share/doc/x/LICENSE": mit,
		"package-lock.json":       packageLock2,
		"composer.lock":           composerLock,
	})
}

// noticeTree has files that Trivy does not look at: they have no extension, or are
// called otherwise than LICENSE.
func noticeTree(t testing.TB, dir string) string {
	return writeAll(t, dir, map[string]string{
		"LICENSE": mit, "a/COPYING": bsd, "b/NOTICE": "A\nCopyright 2026 Somebody\n\n" + apacheHeader,
	})
}
