package audit

import (
	"strings"
	"testing"
)

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"--name=default|/etc":                           "--name=default|/etc",
		"--key=s3cret":                                  "--key=[redacted]",
		"--key|s3cret|/etc":                             "--key|[redacted]|/etc",
		"--password|s3cret|x":                           "--password|[redacted]|x",
		"--db-password=s3cret":                          "--db-password=[redacted]",
		"-token=s3cret":                                 "-token=[redacted]",
		"--token-file=/etc/x":                           "--token-file=/etc/x",
		"--token-file|/etc/x":                           "--token-file|/etc/x",
		"https://ada:s3cret@host/x":                     "https://[redacted]@host/x",
		"https://ada:s3@cret@host/x":                    "https://[redacted]@host/x",
		"PGPASSWORD=s3cret":                             "PGPASSWORD=[redacted]",
		`{"clientSecret":"s3cret"}`:                     `{"clientSecret":[redacted]`,
		"--authtoken|s3cret":                            "--authtoken|[redacted]",
		"max_tokens=5|--tokens=5":                       "max_tokens=5|--tokens=5",
		"postgres://ada:s3/cret?#x@host/db":             "postgres://[redacted]@host/db",
		"https://host:8080/a@b|https://host:80@x":       "https://host:8080/a@b|https://[redacted]@x",
		"nats://a:s3cret@h1:4222,nats://b:s3cret@h2:1/": "nats://[redacted]@h1:4222,nats://[redacted]@h2:1/",
		"https://s3cret@host/x":                         "https://[redacted]@host/x",
		"ssh://git@host/x":                              "ssh://git@host/x",
		"--url=nats://ada:s3cret@host:4222":             "--url=nats://[redacted]@host:4222",
		"https://host/a@b":                              "https://host/a@b",
		"https://host/x?user=1&access_token=s3cret&y=2": "https://host/x?user=1&access_token=[redacted]&y=2",
		"password=s3cret":                               "password=[redacted]",
		"DB_PASSWORD=s3cret with blanks":                "DB_PASSWORD=[redacted]",
		"AWS_SECRET_ACCESS_KEY=s3cret":                  "AWS_SECRET_ACCESS_KEY=[redacted]",
		"--header=Authorization: Bearer s3cret":         "--header=Authorization: [redacted]",
		"api-key:s3cret":                                "api-key:[redacted]",
		`{"token": "s3cret"}`:                           `{"token": [redacted]`,
		"--set|pin=1,password=s3cret,mode=2":            "--set|pin=1,password=[redacted],mode=2",
		"author=ada|compass=north|bypass=1":             "author=ada|compass=north|bypass=1",
		"--|--password=s3cret|plain":                    "--|--password=[redacted]|plain",
		"-v|-|":                                         "-v|-|",
		"tokens.txt":                                    "tokens.txt",
	} {
		got := strings.Join(Redact(strings.Split(in, "|"), map[string]bool{"key": true}), "|")
		if got != want {
			t.Errorf("%q became %q; want %q", in, got, want)
		}
		if strings.Contains(got, "s3cret") {
			t.Errorf("%q keeps its secret: %q", in, got)
		}
	}
}

func TestRedactText(t *testing.T) {
	for in, want := range map[string]string{
		"open /w/https:/ada:s3cret@host/.x: no such file": "open /w/https:/[redacted]@host/.x: no such file",
		"open /w/https:/ada:s3/cret@host: no such file":   "open /w/https:/[redacted]@host: no such file",
		"password=s3cret is too short":                    "password=[redacted] is too short",
		"bad header Authorization: Bearer s3cret at 1":    "bad header Authorization: [redacted] at 1",
		"2 changes, 1 added":                              "2 changes, 1 added",
	} {
		if got := redactText(in); got != want {
			t.Errorf("%q became %q; want %q", in, got, want)
		}
	}
}
