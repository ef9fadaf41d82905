package source

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/trust"
)

func TestNamesFromAnIndex(t *testing.T) {
	p := newPublisher(t)
	old, current, next := pkg(5000, "old"), pkg(6000, "current"), pkg(7000, "next")
	p.add("siem", "1.0.1", old)
	p.add("siem", "1.0.2", current)
	p.add("siem", "2.0.3", next)
	p.add("rbac", "1.0.1", old)
	p.needs["siem-2.0.3.plugin.tar.zst"] = "2.0.0"
	p.needs["rbac-1.0.1.plugin.tar.zst"] = "2.0.0"
	doc := p.publish()
	if doc.Serial != 1 || len(doc.Plugins) != 2 || doc.Plugins[1].Versions[0].Sequence != 3 {
		t.Fatalf("%+v", doc)
	}
	s := p.serve()
	for _, url := range []string{s.URL, s.URL + "/", s.URL + "/index.json", p.dir, "file://" + p.dir, filepath.Join(p.dir, "index.json")} {
		o := p.options(url)
		var accepted []Seen
		o.Accept = func(name string, seen Seen) error {
			accepted = append(accepted, seen)
			return nil
		}
		found, err := Resolve(t.Context(), "siem", o)
		if err == nil && (found.Name != "siem" || found.Version != "1.0.2" || found.Sequence != 2 || found.Index != "corp" || found.Kind != InIndex ||
			len(found.Notes) != 1 || !strings.Contains(found.Notes[0], "2.0.3 is newer, and needs mobileops 2.0.0")) {
			t.Errorf("%+v", found)
		}
		holds(t, found, err, current, o.TempDir)
		if len(accepted) != 1 || accepted[0].Serial != 1 || accepted[0].Digest != digestOf(p.get(IndexName)) || !accepted[0].Time.Equal(now.Add(time.Hour)) {
			t.Errorf("%+v", accepted)
		}
		o.Version = "1.0.1"
		found, err = Resolve(t.Context(), "siem@corp", o)
		holds(t, found, err, old, o.TempDir)
		o.Version, o.Product = "", "2.0.0"
		found, err = Resolve(t.Context(), "siem", o)
		holds(t, found, err, next, o.TempDir)
	}
	o := p.options(s.URL)
	_, err := Resolve(t.Context(), "rbac", o)
	wantCode(t, err, CodeTooNew, failure.NotReady)
	_, err = Resolve(t.Context(), "siemm", o)
	wantCode(t, err, CodeNotFound, failure.NotReady)
	if err == nil || !strings.Contains(err.Error(), "did you mean siem?") {
		t.Errorf("%v", err)
	}
	_, err = Resolve(t.Context(), "siem@other", o)
	wantCode(t, err, CodeNoIndex, failure.NotReady)
	o.Version = "2.0.3"
	_, err = Resolve(t.Context(), "siem", o)
	wantCode(t, err, CodeTooNew, failure.NotReady)
	o.Version = "9"
	_, err = Resolve(t.Context(), "siem", o)
	wantCode(t, err, CodeNotFound, failure.NotReady)
	o.Version = ""
	o.Accept = func(string, Seen) error { return errors.New("no room") }
	if _, err = Resolve(t.Context(), "siem", o); err == nil || !strings.Contains(err.Error(), "no room") {
		t.Errorf("an index was used that could not be remembered: %v", err)
	}
	o.Accept = nil
	o.Indexes = append(o.Indexes, Index{Name: "mirror", URL: p.dir})
	_, err = Resolve(t.Context(), "siem", o)
	wantCode(t, err, CodeAmbiguous, failure.Usage)
	found, err := Resolve(t.Context(), "siem@mirror", o)
	holds(t, found, err, current, o.TempDir)
}

// TestRefusedIndexes is what an attacker in the place of the server can try.
func TestRefusedIndexes(t *testing.T) {
	stranger := newSigner(t)
	expires := now.Add(48 * time.Hour)
	remake := func(t *testing.T, p *publisher, change func(*Document)) []byte {
		var doc Document
		if err := json.Unmarshal(p.get(IndexName), &doc); err != nil {
			t.Fatal(err)
		}
		doc.Expires = expires
		change(&doc)
		b, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, tc := range map[string]struct {
		do   func(t *testing.T, p *publisher, o *Options)
		code any
	}{
		"unsigned":          {func(t *testing.T, p *publisher, _ *Options) { os.Remove(filepath.Join(p.dir, "index.json.minisig")) }, trust.CodeUnsigned},
		"empty signature":   {func(t *testing.T, p *publisher, _ *Options) { p.put("index.json.minisig", nil) }, trust.CodeUnsigned},
		"long signature":    {func(t *testing.T, p *publisher, _ *Options) { p.put("index.json.minisig", make([]byte, 1<<20)) }, CodeTooLarge},
		"nobody is trusted": {func(t *testing.T, p *publisher, o *Options) { o.Keys = newKeys(t) }, trust.CodeNoKeys},
		"another key":       {func(t *testing.T, p *publisher, o *Options) { o.Keys = newKeys(t, stranger) }, trust.CodeWrongKey},
		"no keys at all":    {func(t *testing.T, p *publisher, o *Options) { o.Keys = nil }, failure.NotReady},
		"changed": {func(t *testing.T, p *publisher, _ *Options) {
			p.put(IndexName, bytes.Replace(p.get(IndexName), []byte("siem"), []byte("smei"), 1))
		}, trust.CodeBadSignature},
		"gone":     {func(t *testing.T, p *publisher, _ *Options) { os.Remove(filepath.Join(p.dir, IndexName)) }, CodeMissing},
		"rollback": {func(t *testing.T, p *publisher, o *Options) { o.Indexes[0].Seen = Seen{Serial: 2, Time: now} }, CodeRollback},
		"two of one serial": {func(t *testing.T, p *publisher, o *Options) {
			o.Indexes[0].Seen = Seen{Serial: 1, Digest: digestOf(nil), Time: now}
		}, CodeRollback},
		"expired": {func(t *testing.T, p *publisher, o *Options) {
			o.Now = func() time.Time { return now.Add(DefaultIndexLife) }
		}, CodeExpired},
		"clock was set back": {func(t *testing.T, p *publisher, o *Options) {
			o.Indexes[0].Seen = Seen{Serial: 1, Time: now.Add(DefaultIndexLife)}
		}, CodeExpired},
		"too large": {func(t *testing.T, p *publisher, _ *Options) {
			p.sign(append(p.get(IndexName), bytes.Repeat([]byte{' '}, maxIndex)...), 1, expires)
		}, CodeTooLarge},
		"not JSON": {func(t *testing.T, p *publisher, _ *Options) { p.sign([]byte("<html>"), 1, expires) }, CodeMalformed},
		"another serial": {func(t *testing.T, p *publisher, _ *Options) {
			p.sign(remake(t, p, func(d *Document) { d.Serial = 7 }), 8, expires)
		}, CodeMalformed},
		"another end": {func(t *testing.T, p *publisher, _ *Options) {
			p.sign(remake(t, p, func(d *Document) { d.Expires = expires.Add(1e9) }), 1, expires)
		}, CodeMalformed},
		"signature of a plugin": {func(t *testing.T, p *publisher, _ *Options) {
			sig, err := trust.SignPackage(t.Context(), p.signer, bytes.NewReader(p.get(IndexName)), trust.Release{Name: "index", Version: "1", Sequence: 1, Channel: IndexChannel, Expires: expires}, "")
			if err != nil {
				t.Fatal(err)
			}
			p.put("index.json.minisig", sig)
		}, CodeMalformed},
		"key for plugins alone": {func(t *testing.T, p *publisher, o *Options) {
			o.Keys = newKeys(t)
			if _, err := o.Keys.Add(p.signer.Public(), trust.Scope{Names: []string{"siem"}}); err != nil {
				t.Fatal(err)
			}
		}, trust.CodeKeyScope},
		"package changed": {func(t *testing.T, p *publisher, _ *Options) { p.add("siem", "1.0.1", pkg(5000, "bad")) }, CodeDigest},
		"package shorter": {func(t *testing.T, p *publisher, _ *Options) { p.add("siem", "1.0.1", pkg(4000, "good")) }, CodeTruncated},
		"package longer":  {func(t *testing.T, p *publisher, _ *Options) { p.add("siem", "1.0.1", pkg(6000, "good")) }, CodeDigest},
		"package gone": {func(t *testing.T, p *publisher, _ *Options) {
			os.Remove(filepath.Join(p.dir, "siem-1.0.1.plugin.tar.zst"))
		}, CodeMissing},
		"package too large": {func(t *testing.T, p *publisher, o *Options) { o.MaxPackage = 4999 }, CodeTooLarge},
		"package elsewhere, not encrypted": {func(t *testing.T, p *publisher, _ *Options) {
			p.sign(remake(t, p, func(d *Document) { d.Plugins[0].Versions[0].URL = "http://example.org/x" }), 1, expires)
		}, CodePlainHTTP},
	} {
		for _, local := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " local=", local), func(t *testing.T) {
				p := newPublisher(t)
				p.add("siem", "1.0.1", pkg(5000, "good"))
				p.publish()
				where := p.dir
				if !local {
					where = p.serve().URL
				}
				o := p.options(where)
				o.Accept = func(string, Seen) error { return nil }
				tc.do(t, p, &o)
				found, err := Resolve(t.Context(), "siem", o)
				if err == nil {
					t.Fatalf("%+v", found)
				}
				switch code := tc.code.(type) {
				case Code:
					if CodeOf(err) != code {
						t.Errorf("%v: %q, want %q", err, CodeOf(err), code)
					}
				case trust.Code:
					if trust.CodeOf(err) != code {
						t.Errorf("%v: %q, want %q", err, trust.CodeOf(err), code)
					}
				case failure.Kind:
					if failure.KindOf(err) != code {
						t.Errorf("%v", err)
					}
				}
				empty(t, o.TempDir)
			})
		}
	}
}

func TestLocalIndexStaysInItsDirectory(t *testing.T) {
	p := newPublisher(t)
	p.add("siem", "1.0.1", pkg(5000, "good"))
	p.publish()
	outside := filepath.Join(t.TempDir(), "x.plugin.tar.zst")
	if err := os.WriteFile(outside, pkg(5000, "good"), 0o644); err != nil {
		t.Fatal(err)
	}
	inside := filepath.Join(p.dir, "siem-1.0.1.plugin.tar.zst")
	if err := os.Remove(inside); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, inside); err != nil {
		t.Fatal(err)
	}
	_, err := Resolve(t.Context(), "siem", p.options(p.dir))
	wantCode(t, err, CodeMissing, failure.Failed)
}

// TestPublishedBetweenTwoRequests serves the index of before with the
// signature of after, once.
func TestPublishedBetweenTwoRequests(t *testing.T) {
	p := newPublisher(t)
	p.add("siem", "1.0.1", pkg(5000, "good"))
	p.publish()
	before := p.get(IndexName)
	p.add("siem", "1.0.2", pkg(5000, "better"))
	p.publish()
	var asked atomic.Int32
	files := http.FileServer(http.Dir(p.dir))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/index.json" && asked.Add(1) == 1 {
			_, _ = w.Write(before)
			return
		}
		files.ServeHTTP(w, r)
	}))
	defer s.Close()
	o := p.options(s.URL)
	found, err := Resolve(t.Context(), "siem", o)
	holds(t, found, err, pkg(5000, "better"), o.TempDir)
	if asked.Load() < 2 {
		t.Errorf("asked %d times", asked.Load())
	}
}

func TestOfflineAndUnreachable(t *testing.T) {
	p := newPublisher(t)
	good := pkg(5000, "good")
	p.add("siem", "1.0.1", good)
	p.publish()
	s := p.serve()
	o := p.options(s.URL)
	_, err := Resolve(t.Context(), "siem", Options{Indexes: o.Indexes, Keys: o.Keys, CacheDir: o.CacheDir, Offline: true, Now: o.Now})
	wantCode(t, err, CodeUnreachable, failure.Failed)
	for _, st := range Refresh(t.Context(), o) {
		if st.Err != nil || st.Serial != 1 || st.Plugins != 1 || st.Cached {
			t.Errorf("%+v", st)
		}
	}
	o.Offline = true
	_, err = Resolve(t.Context(), "siem", o) // the index is here, the package is not
	wantCode(t, err, CodeUnreachable, failure.Failed)
	o.Offline = false
	later := o
	later.Now = func() time.Time { return now.Add(4 * time.Hour) }
	s.Close()
	kept, note, err := current(t.Context(), later.Indexes[0], later.withDefaults())
	if err != nil || !kept.cached || !strings.Contains(note, "3h0m0s ago") {
		t.Errorf("%+v, %q, %v", kept, note, err)
	}
	later.Now = func() time.Time { return now.Add(DefaultIndexLife) }
	_, err = Resolve(t.Context(), "siem", later)
	wantCode(t, err, CodeExpired, failure.Untrustworthy)
	o.Indexes[0].Seen = Seen{Serial: 2, Time: now}
	_, err = Resolve(t.Context(), "siem", o) // somebody put an older one into the cache
	wantCode(t, err, CodeRollback, failure.Untrustworthy)
}

func TestSearch(t *testing.T) {
	p := newPublisher(t)
	for _, name := range []string{"siem", "siem-extra", "my-siem", "rbac"} {
		p.add(name, "1.0.1", pkg(100, name))
	}
	p.add("rbac", "3.0.3", pkg(100, "x"))
	p.needs["rbac-3.0.3.plugin.tar.zst"] = "3.0.0"
	p.publish()
	s := p.serve()
	o := p.options(s.URL)
	o.Indexes = append(o.Indexes, Index{Name: "never", URL: "https://example.org/plugins"})
	r, err := Search(t.Context(), "siem", o)
	if err != nil || len(r.Hits) != 0 || CodeOf(r.Indexes[0].Err) != CodeNoIndex {
		t.Errorf("%+v, %v", r, err)
	}
	o.Indexes = o.Indexes[:1]
	Refresh(t.Context(), o)
	s.Close() // from here on everything is offline
	o.Indexes = append(o.Indexes, Index{Name: "never", URL: "https://example.org/plugins"})
	o.Now = func() time.Time { return now.Add(25 * time.Hour) }
	for query, want := range map[string]string{
		"siem": "siem siem-extra my-siem", "SIEM Extra": "siem-extra", "": "my-siem rbac siem siem-extra", "does": "my-siem rbac siem siem-extra", "nothing": "", "siem nothing": "",
	} {
		r, err := Search(t.Context(), query, o)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, h := range r.Hits {
			got = append(got, h.Name)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q found %q, want %q", query, got, want)
		}
		if st := r.Indexes[0]; st.Err != nil || !st.Cached || st.Age(o.Now()) != 24*time.Hour || st.Serial != 1 || CodeOf(r.Indexes[1].Err) != CodeNoIndex {
			t.Errorf("%+v", r.Indexes)
		}
	}
	r, err = Search(t.Context(), "rbac", o)
	if err != nil || len(r.Hits) != 1 || r.Hits[0].Version != "1.0.1" || r.Hits[0].Needs != "" || r.Hits[0].Index != "corp" || r.Hits[0].Summary != "Does what rbac does" {
		t.Errorf("%+v, %v", r, err)
	}
	o.Product = "0.1.0"
	o.Now = func() time.Time { return now.Add(2 * DefaultIndexLife) }
	r, err = Search(t.Context(), "rbac", o)
	if err != nil || len(r.Hits) != 1 || CodeOf(r.Indexes[0].Err) != CodeExpired {
		t.Errorf("%+v, %v", r, err)
	}
	// Whoever can write the cache gains nothing.
	path := filepath.Join(o.CacheDir, "corp.index")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.ReplaceAll(b, []byte("my-siem"), []byte("our-sie")), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err = Search(t.Context(), "", o)
	if err != nil || len(r.Hits) != 0 || trust.CodeOf(r.Indexes[0].Err) != trust.CodeBadSignature {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestMakeIndex(t *testing.T) {
	p := newPublisher(t)
	p.add("siem", "1.0.1", pkg(100, "x"))
	p.put("readme.txt", []byte("x"))
	p.put(".hidden-1.0.1.plugin.tar.zst", []byte("x"))
	for want := range uint64(3) {
		if doc := p.publish(); doc.Serial != want+1 || len(doc.Plugins) != 1 || !doc.Expires.Equal(now.Add(DefaultIndexLife)) {
			t.Errorf("%+v", doc)
		}
	}
	before := p.get(IndexName)
	make := func(o PublishOptions) error {
		o.Signer, o.Now = p.signer, now
		if o.Describe == nil {
			o.Describe = p.describe
		}
		_, err := MakeIndex(t.Context(), p.dir, o)
		return err
	}
	if err := make(PublishOptions{Serial: 3}); failure.KindOf(err) != failure.Usage {
		t.Errorf("%v", err)
	}
	if err := make(PublishOptions{Expires: now}); failure.KindOf(err) != failure.Usage {
		t.Errorf("%v", err)
	}
	p.add("siem", "2.0.1", pkg(100, "y")) // the same sequence
	if err := make(PublishOptions{}); failure.KindOf(err) != failure.Usage {
		t.Errorf("%v", err)
	}
	p.needs["siem-1.0.1.plugin.tar.zst"] = "new"
	os.Remove(filepath.Join(p.dir, "siem-2.0.1.plugin.tar.zst"))
	wantCode(t, make(PublishOptions{}), CodeMalformed, failure.Untrustworthy)
	if !bytes.Equal(p.get(IndexName), before) {
		t.Error("the index was changed by one that could not be made")
	}
	delete(p.needs, "siem-1.0.1.plugin.tar.zst")
	if err := make(PublishOptions{Serial: 100}); err != nil {
		t.Error(err)
	}
	p.put(IndexName, []byte("{}"))
	wantCode(t, make(PublishOptions{}), CodeMalformed, failure.Untrustworthy)
}

func sound() Document {
	v := Version{Version: "1.0.1", Sequence: 2, URL: "x.plugin.tar.zst", Size: 1, Digest: strings.Repeat("a", 64), Summary: "Über alles", MinVersion: "1.0.0"}
	w := v
	w.Sequence, w.URL = 1, "oci://h/r:1"
	return Document{Schema: IndexSchema, Serial: 1, Generated: now, Expires: now, Plugins: []Plugin{{"aa", []Version{v, w}}, {"bb", []Version{v}}}}
}

func TestParseRefuses(t *testing.T) {
	good, err := json.Marshal(sound())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(good); err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(bytes.Replace(good, []byte("{"), []byte(`{"later":[1],`), 1)); err != nil {
		t.Errorf("a member that is not known yet: %v", err)
	}
	for name, change := range map[string]func(*Document){
		"schema": func(d *Document) { d.Schema = "mobileops.plugin.index/v2" }, "serial": func(d *Document) { d.Serial = 0 }, "large serial": func(d *Document) { d.Serial = 1 << 63 },
		"no end": func(d *Document) { d.Expires = time.Time{} }, "name": func(d *Document) { d.Plugins[0].Name = "../x" }, "order": func(d *Document) { d.Plugins[1].Name = "a1" },
		"twice": func(d *Document) { d.Plugins[1].Name = "aa" }, "no version": func(d *Document) { d.Plugins[0].Versions = nil }, "sequence order": func(d *Document) { d.Plugins[0].Versions[1].Sequence = 2 },
		"version": func(d *Document) { d.Plugins[0].Versions[0].Version = "a b" }, "size": func(d *Document) { d.Plugins[0].Versions[0].Size = 0 },
		"digest": func(d *Document) { d.Plugins[0].Versions[0].Digest = strings.Repeat("A", 64) }, "summary": func(d *Document) { d.Plugins[0].Versions[0].Summary = "a\u202eb" },
		"long summary": func(d *Document) { d.Plugins[0].Versions[0].Summary = strings.Repeat("x", 81) }, "min": func(d *Document) { d.Plugins[0].Versions[0].MinVersion = "x" },
		"no url": func(d *Document) { d.Plugins[0].Versions[0].URL = "" }, "password": func(d *Document) { d.Plugins[0].Versions[0].URL = "https://u:p@h/x" },
		"file": func(d *Document) { d.Plugins[0].Versions[0].URL = "file:///etc/passwd" }, "host": func(d *Document) { d.Plugins[0].Versions[0].URL = "//h/x" },
		"script": func(d *Document) { d.Plugins[0].Versions[0].URL = "javascript:x" }, "space": func(d *Document) { d.Plugins[0].Versions[0].URL = "a b" },
		"many": func(d *Document) { d.Plugins = make([]Plugin, maxPlugins+1) }, "many versions": func(d *Document) { d.Plugins[0].Versions = make([]Version, maxVersions+1) },
	} {
		doc := sound()
		change(&doc)
		b, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(b); CodeOf(err) != CodeMalformed {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, b := range []string{"", "[]", string(good) + "x", string(good) + string(good), strings.Repeat("[", 20000), `{"schema":1}`} {
		if _, err := Parse([]byte(b)); CodeOf(err) != CodeMalformed {
			t.Errorf("%.40q: %v", b, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	good, err := json.Marshal(sound())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"schema":"mobileops.plugin.index/v1","serial":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		doc, err := Parse(b)
		if err != nil {
			if CodeOf(err) == "" {
				t.Errorf("%v has no code", err)
			}
			return
		}
		again, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(again); err != nil && len(again) <= maxIndex {
			t.Errorf("%v of %q", err, again)
		}
		for _, p := range doc.Plugins {
			for _, v := range p.Versions {
				if _, name, err := (place{dir: "/x"}).resolve(v.URL); err != nil || strings.Contains("/"+name+"/", "/../") {
					t.Errorf("%q leads to %q, %v", v.URL, name, err)
				}
			}
		}
	})
}

func FuzzSpec(f *testing.F) {
	for _, s := range []string{"name", "name@index", "./x", "oci://h:5/r/x@sha256:" + strings.Repeat("a", 64), "https://h/x#blake3=" + strings.Repeat("a", 64), "file:///x", "oci://[::1]:5/x:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		found, err := Resolve(t.Context(), spec, Options{Offline: true})
		if err == nil && (found.Kind != File && found.Kind != Directory || !filepath.IsAbs(found.Path)) {
			t.Errorf("%q is %+v without a network", spec, found)
		}
	})
}
