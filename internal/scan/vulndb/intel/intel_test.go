package intel

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

const kevText = `{"title":"CISA Catalog","catalogVersion":"2026.05.19","dateReleased":"2026-05-19T14:00:00.1234Z","count":2,"vulnerabilities":[
{"cveID":"CVE-2021-44228","vendorProject":"Apache","product":"Log4j2","vulnerabilityName":"Apache Log4j2 Remote Code Execution Vulnerability","dateAdded":"2021-12-10","shortDescription":"d","requiredAction":"Update it.","dueDate":"2021-12-24","knownRansomwareCampaignUse":"Known","notes":"","cwes":["CWE-20"]},
{"cveID":"CVE-2019-0708","vendorProject":"Microsoft","product":"Remote Desktop","vulnerabilityName":"BlueKeep","dateAdded":"2021-11-03","requiredAction":"","dueDate":"","knownRansomwareCampaignUse":"Unknown"}]}`

const epssText = "#model_version:v2025.03.14,score_date:2026-05-19T00:00:00+0000\ncve,epss,percentile\nCVE-2021-44228,0.94358,0.99962\nCVE-1999-0001,0.0124,0.78\nCVE-2024-1234567,0.00042,0.05\n"

// reopened writes a table and reads it again.
func reopened(t testing.TB, table *Table) *Table {
	t.Helper()
	data, err := table.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "x.table")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := ReadTable(path)
	if err != nil {
		t.Fatal(err)
	}
	if !again.Same(table) || again.About != table.About {
		t.Error("it is not the same when it is read")
	}
	if err := again.Check(); err != nil {
		t.Error(err)
	}
	return again
}

func TestKEV(t *testing.T) {
	table, err := ParseKEV(strings.NewReader(kevText))
	if err != nil {
		t.Fatal(err)
	}
	table = reopened(t, table)
	if table.Len() != 2 || table.Edition != "2026.05.19" || !table.Date.Equal(time.Date(2026, 5, 19, 14, 0, 0, 0, time.UTC)) {
		t.Errorf("%d, %+v", table.Len(), table)
	}
	k, ok := table.KEV("CVE-2021-44228")
	want := KEV{Added: time.Date(2021, 12, 10, 0, 0, 0, 0, time.UTC), Due: time.Date(2021, 12, 24, 0, 0, 0, 0, time.UTC), Ransomware: true, Vendor: "Apache", Product: "Log4j2",
		Name: "Apache Log4j2 Remote Code Execution Vulnerability", Action: "Update it."}
	if !ok || k != want {
		t.Errorf("%+v, %v", k, ok)
	}
	if k, ok := table.KEV("CVE-2019-0708"); !ok || k.Ransomware || !k.Due.IsZero() || k.Name != "BlueKeep" {
		t.Errorf("%+v, %v", k, ok)
	}
	for _, none := range []string{"CVE-2021-44229", "CVE-0000-0001", "", "GHSA-x", "cve-2021-44228"} {
		if _, ok := table.KEV(none); ok {
			t.Errorf("%s is there", none)
		}
	}
	if _, ok := table.EPSS("CVE-2021-44228"); ok {
		t.Error("KEV taken for EPSS")
	}
	var no *Table
	if _, ok := no.KEV("CVE-2021-44228"); ok || no.Len() != 0 {
		t.Error("something in nothing")
	}
}

func TestEPSS(t *testing.T) {
	var packed bytes.Buffer
	zw := gzip.NewWriter(&packed)
	_, _ = zw.Write([]byte(epssText))
	_ = zw.Close()
	for _, text := range []string{epssText, strings.ReplaceAll(epssText, "\n", "\r\n"), strings.TrimSuffix(epssText, "\n"), packed.String()} {
		table, err := ParseEPSS(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		table = reopened(t, table)
		if table.Len() != 3 || table.Edition != "v2025.03.14" || table.Date.Format(time.DateOnly) != "2026-05-19" {
			t.Errorf("%d, %+v", table.Len(), table)
		}
		for cve, want := range map[string]EPSS{"CVE-2021-44228": {0.94358, 0.99962}, "CVE-1999-0001": {0.0124, 0.78}, "CVE-2024-1234567": {0.00042, 0.05}} {
			if got, ok := table.EPSS(cve); !ok || math.Abs(got.Score-want.Score) > 1e-9 || math.Abs(got.Percentile-want.Percentile) > 1e-9 {
				t.Errorf("%s: %+v, %v", cve, got, ok)
			}
		}
	}
}

func TestMalformed(t *testing.T) {
	head := "#model_version:v1,score_date:2026-05-19T00:00:00+0000\ncve,epss,percentile\n"
	for _, text := range []string{
		"", "\n", "cve,epss,percentile\nCVE-2021-44228,0.9,0.9\n", head, "#model_version:v1\ncve,epss,percentile\nCVE-2021-44228,0.9,0.9\n",
		head + "CVE-2021-44228,0.9\n", head + "CVE-2021-44228,0.9,0.9,0.9\n", head + "CVE-2021-44228,1.1,0.9\n", head + "CVE-2021-44228,-0,NaN\n",
		head + "CVE-21-44228,0.1,0.9\n", head + "CVE-2021-044228,0.1,0.9\n", head + "CVE-2021-99999999999999,0.1,0.9\n", head + "CVE-2021-1-1,0.1,0.9\n",
		head + "CVE-2021-44228,0.9,0.9\nCVE-2021-44228,0.8,0.9\n", head + strings.Repeat("x", 5000), "\x1f\x8b\x08 no", head + "\n\nCVE-2021-44228,0.9,0.9\n",
		strings.Replace(head, "epss", "score", 1),
	} {
		_, err := ParseEPSS(strings.NewReader(text))
		if failure.KindOf(err) != failure.Untrustworthy {
			t.Errorf("%.80q: %v", text, err)
		}
	}
	for _, text := range []string{
		"", "[]", "{}", "x", kevText[:200], strings.Replace(kevText, `"count":2`, `"count":3`, 1), strings.Replace(kevText, `"count":2,`, ``, 1),
		strings.Replace(kevText, "CVE-2019-0708", "CVE-2021-44228", 1), strings.Replace(kevText, "2021-12-10", "yesterday", 1), strings.Replace(kevText, "CVE-2019-0708", "CWE-2019-0708", 1),
		strings.Replace(kevText, "2026-05-19T14", "19T14", 1), strings.Replace(kevText, "BlueKeep", strings.Repeat("x", 9000), 1), strings.Replace(kevText, `"Known"`, `{}`, 1),
	} {
		_, err := ParseKEV(strings.NewReader(text))
		if failure.KindOf(err) != failure.Untrustworthy {
			t.Errorf("%.80q: %v", text, err)
		}
	}
	table, err := ParseEPSS(strings.NewReader(epssText))
	if err != nil {
		t.Fatal(err)
	}
	data, err := table.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	for at := range data {
		b := bytes.Clone(data)
		b[at] ^= 0x10
		if _, err := openTable(b); failure.KindOf(err) != failure.Untrustworthy {
			t.Errorf("byte %d changed: %v", at, err)
		}
		if _, err := openTable(data[:at]); failure.KindOf(err) != failure.Untrustworthy {
			t.Errorf("cut at %d: %v", at, err)
		}
	}
}

// full is as much of EPSS as is published.
func full() []byte {
	var b bytes.Buffer
	b.WriteString("#model_version:v2025.03.14,score_date:2026-05-19T00:00:00+0000\ncve,epss,percentile\n")
	for i := range 300_000 {
		fmt.Fprintf(&b, "CVE-%d-%04d,0.%05d,0.%05d\n", 1999+i/11_000, 1+i%11_000, i%99_999, i/4)
	}
	return b.Bytes()
}

func BenchmarkImportEPSS(b *testing.B) {
	data := full()
	for b.Loop() {
		if t, err := ParseEPSS(bytes.NewReader(data)); err != nil || t.Len() != 300_000 {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenEPSS(b *testing.B) {
	t, err := ParseEPSS(bytes.NewReader(full()))
	if err != nil {
		b.Fatal(err)
	}
	data, err := t.Append(nil)
	if err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(b.TempDir(), "epss.table")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := ReadTable(path); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLookupEPSS(b *testing.B) {
	t, err := ParseEPSS(bytes.NewReader(full()))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, ok := t.EPSS("CVE-2021-4422"); !ok {
			b.Fatal("it is not there")
		}
	}
}

func FuzzKEV(f *testing.F) {
	f.Add([]byte(kevText))
	f.Add([]byte(kevText[:300]))
	f.Add([]byte(`{"count":0,"vulnerabilities":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if table, err := ParseKEV(bytes.NewReader(data)); err == nil {
			reread(t, table)
		}
	})
}

func FuzzEPSS(f *testing.F) {
	f.Add([]byte(epssText))
	f.Add([]byte(epssText[:100]))
	f.Add([]byte("\x1f\x8b\x08\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if table, err := ParseEPSS(bytes.NewReader(data)); err == nil {
			reread(t, table)
		}
	})
}

func reread(t *testing.T, table *Table) {
	data, err := table.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	again, err := openTable(data)
	if err != nil || !again.Same(table) {
		t.Fatalf("what was parsed cannot be read: %v", err)
	}
}

func FuzzTable(f *testing.F) {
	for _, parse := range []func() (*Table, error){
		func() (*Table, error) { return ParseKEV(strings.NewReader(kevText)) },
		func() (*Table, error) { return ParseEPSS(strings.NewReader(epssText)) },
	} {
		table, err := parse()
		if err != nil {
			f.Fatal(err)
		}
		data, err := table.Append(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		// With the right checksum more of it is looked at.
		if len(data) >= headerSize {
			data = bytes.Clone(data)
			sum(data)
		}
		table, err := openTable(data)
		if err != nil {
			return
		}
		for i := range min(table.Len(), 100) {
			cve := name(leKey(table.rows[i*rowSize(table.kind):]))
			table.KEV(cve)
			table.EPSS(cve)
		}
	})
}

// openTable reads the file of a table, and proves that all of it is as it was
// written. The table keeps data.
func openTable(data []byte) (*Table, error) {
	t, err := open(data)
	if err != nil {
		return nil, err
	}
	return t, t.Check()
}
