package vulndbtest

import (
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	Write(t, dir, Sample()...)
	db, err := bolt.Open(dir+"/trivy.db", 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.View(func(tx *bolt.Tx) error {
		if got := string(tx.Bucket([]byte("debian 12")).Bucket([]byte("openssl")).Get([]byte("CVE-2024-0001"))); got != `{"FixedVersion":"3.0.15-1~deb12u1"}` {
			t.Errorf("advisory %s", got)
		}
		if got := string(tx.Bucket([]byte("data-source")).Get([]byte("npm::GitHub Security Advisory npm"))); got != `{"ID":"ghsa","Name":"GitHub Security Advisory npm","URL":"https://advisories.example/"}` {
			t.Errorf("source %s", got)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(Archive(t, time.Now(), Sample()...)) < 300 {
		t.Error("an archive of nothing")
	}
}
