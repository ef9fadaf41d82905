package integrity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"aead.dev/minisign"
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/integrity/history"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

type signOptions struct {
	export       string
	imports      []string
	key          string
	passwordFile string
	force        bool
}

func newBaselineSign(a *app.App) *cobra.Command {
	var opts signOptions
	cmd := a.Command(app.Spec{
		Use:   "sign (--export-unsigned FILE | --key SECRET FILE... | --import FILE.minisig)",
		Short: "Sign the records of baselines on another machine than this",
		Long: `Sign the records of baselines on another machine than this, where the private
key never was on this host (see mobileops integrity key use):

  1. here:   --export-unsigned FILE writes the record that waits
  2. there:  --key SECRET FILE signs it and writes FILE.minisig; that machine
             needs no state, and minisign -S does the same
  3. here:   --import FILE.minisig keeps the signature with the record

A signature vouches for all records before it, so only the last one is written,
and the others that wait are named. Look at all of them before you sign: they
say who took or accepted what, and why. When
the key was changed, the last record under each key is wanted: FILE is then a
directory.

The password of an encrypted key is asked for, or read from --password-file.`,
		Example: `
mobileops integrity baseline sign --export-unsigned /media/usb/web1.json
mobileops integrity baseline sign --key vault.key /media/usb/web1.json
minisign -S -s vault.key -m /media/usb/web1.json    # the same, with minisign
mobileops integrity baseline sign --import /media/usb/web1.json.minisig
`,
		Args: cobra.ArbitraryArgs,
		Statuses: []app.Status{
			{Code: 4, Text: "the password is wrong"},
			{Code: 5, Text: "FILE is no record, or the signature is of no record of this history"},
			{Code: 8, Text: "no record waits for a signature, or it has one already"},
		},
		Files:    []string{stateFile},
		Audited:  true,
		Run:      func(ctx context.Context, args []string) error { return runBaselineSign(ctx, a, &opts, args) },
		Complete: func(context.Context, []string, string) []string { return app.Files() },
	})
	fs := cmd.Flags()
	fs.StringVar(&opts.export, "export-unsigned", "", "write the record that waits for its signature to `FILE`, - for standard output")
	fs.StringVar(&opts.key, "key", "", "sign with the minisign secret key in `SECRET`")
	fs.StringVar(&opts.passwordFile, "password-file", "", "its password is the first line of `FILE`")
	fs.StringArrayVar(&opts.imports, "import", nil, "keep the signature in `FILE.minisig`")
	fs.BoolVar(&opts.force, "force", false, "replace files that exist")
	app.CompleteFiles(cmd, "key", "key")
	app.CompleteFiles(cmd, "export-unsigned", "json")
	app.CompleteFiles(cmd, "import", "minisig")
	app.CompleteFiles(cmd, "password-file")
	return cmd
}

// signedReport is the document of integrity baseline sign.
type signedReport struct {
	Schema  string         `json:"schema"`
	Did     string         `json:"did"` // exported, signed or imported
	Records []signedRecord `json:"records"`
}

type signedRecord struct {
	Counter  uint64 `json:"counter"`
	Kind     string `json:"kind"`
	Baseline string `json:"baseline,omitempty"`
	Root     string `json:"root,omitempty"`
	Signer   string `json:"signer"` // id of the key
	File     string `json:"file"`
}

func newSignedRecord(r *history.Record, file string) signedRecord {
	s := signedRecord{Counter: r.Counter, Kind: string(r.Kind), Signer: history.KeyID(r.Signer), File: file}
	if r.Name != "" {
		s.Baseline = r.Name + "@" + r.ID
	}
	if r.Root != (history.Digest{}) {
		s.Root = r.Root.String()
	}
	return s
}

func runBaselineSign(ctx context.Context, a *app.App, o *signOptions, files []string) error {
	given := 0
	for _, set := range []bool{o.export != "", o.key != "", len(o.imports) > 0} {
		if set {
			given++
		}
	}
	switch {
	case given != 1:
		return app.UsageError("give one of --export-unsigned, --key and --import")
	case o.key != "" && len(files) == 0:
		return app.UsageError("--key wants the FILE to sign")
	case o.key == "" && len(files) > 0:
		return app.UsageError("a FILE goes with --key")
	case o.passwordFile != "" && o.key == "":
		return app.UsageError("--password-file goes with --key")
	}
	doc := &signedReport{Schema: "mobileops.integrity.baseline.sign/v1", Records: []signedRecord{}}
	var err error
	switch {
	case o.key != "":
		a.OnlyLooked() // nothing in the state changes; there may be none on this machine
		err = signFiles(ctx, a, o, files, doc)
	case o.export != "":
		a.OnlyLooked()
		err = exportUnsigned(ctx, a, o, doc)
	default:
		err = importSignatures(ctx, a, o, doc)
	}
	if err != nil {
		return err
	}
	return printSigned(a, doc)
}

func printSigned(a *app.App, doc *signedReport) error {
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(doc)
	}
	if a.Streams.Quiet {
		return nil
	}
	for _, r := range doc.Records {
		what := r.Baseline
		if what == "" {
			what = r.Kind
		}
		if _, err := fmt.Fprintf(a.Streams.Err, "record %d (%s) %s: %s\n", r.Counter, ui.Escape(what), doc.Did, ui.Escape(r.File)); err != nil {
			return err
		}
	}
	return nil
}

// exportUnsigned writes the records that wait for a signature.
func exportUnsigned(ctx context.Context, a *app.App, o *signOptions, doc *signedReport) error {
	e, _, err := newEngine(a)
	if err != nil {
		return err
	}
	chain, v, err := e.Past(ctx)
	if err != nil {
		return err
	}
	if len(v.Problems) > 0 {
		return failure.Hint(fmt.Errorf("%w: %s", history.ErrBroken, v.Problems[0].What), "nothing was written; do not sign it: mobileops integrity history")
	}
	list, err := e.History().ToSign(chain, v)
	if err != nil {
		return err
	}
	doc.Did = "is to be signed"
	if err := noticeVouched(a, chain, v, list); err != nil {
		return err
	}
	st, statErr := os.Stat(o.export)
	dir := statErr == nil && st.IsDir()
	switch {
	case len(list) == 0:
		return failure.New(failure.Busy, "every record is signed already")
	case len(list) > 1 && !dir:
		return failure.Errorf(failure.Usage, "%d records are to be signed, by different keys: give a directory that exists", len(list))
	}
	for _, r := range list {
		path := o.export
		if dir {
			path = filepath.Join(o.export, fmt.Sprintf("%d.json", r.Counter))
		}
		if path == "-" {
			if _, err := a.Streams.Out.Write(r.Body); err != nil {
				return err
			}
		} else if err := writeNew(path, r.Body, o.force); err != nil {
			return err
		}
		doc.Records = append(doc.Records, newSignedRecord(&r.Record, path))
	}
	if o.export == "-" {
		a.Streams.Quiet = true // standard output is the record's
		a.Streams.Format = ui.Text
	}
	return nil
}

// noticeVouched tells of the records that a signature vouches for without being
// of them: among those may be one that somebody hoped nobody would look at.
func noticeVouched(a *app.App, chain *history.Chain, v *history.Verification, toSign []*history.Entry) error {
	for _, n := range v.Unsigned {
		if slices.ContainsFunc(toSign, func(e *history.Entry) bool { return e.Counter == n }) {
			continue
		}
		r, err := chain.Record(n)
		if err != nil {
			return err
		}
		what := string(r.Kind)
		if r.Name != "" {
			what += fmt.Sprintf(" of %s@%.8s", r.Name, r.ID)
		}
		why := "no reason given"
		if r.Reason != "" {
			why = r.Reason
		}
		a.Streams.Notice("mobileops: the signature will also vouch for record %d: %s by %s on %s, %s; look at it first: mobileops integrity history show %d",
			n, ui.Escape(what), ui.Escape(r.Actor.User), stamp(r.Time), ui.Escape(why), n)
	}
	return nil
}

// writeNew writes a file that must not exist unless force is set.
func writeNew(path string, data []byte, force bool) error {
	f, err := durable.Create(path, 0o644)
	if err != nil {
		return failure.Wrap(failure.Failed, err)
	}
	defer f.Abort()
	if _, err := f.Write(data); err != nil {
		return failure.Wrap(failure.Failed, err)
	}
	if force {
		return failure.Wrap(failure.Failed, f.Commit())
	}
	err = f.CommitNew()
	if errors.Is(err, fs.ErrExist) {
		return failure.Hint(failure.Errorf(failure.Usage, "%s exists already", path), "--force replaces it")
	}
	return failure.Wrap(failure.Failed, err)
}

// maxRecordFile bounds what is read as a record or a signature, in bytes.
const maxRecordFile = 64 << 10

func readSmallFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, failure.Wrap(failure.Failed, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxRecordFile+1))
	if err == nil && len(b) > maxRecordFile {
		err = failure.Errorf(failure.Untrustworthy, "%s is too large", path)
	}
	return b, failure.Wrap(failure.KindOf(err), err)
}

// signFiles signs records, wherever the private key is.
func signFiles(ctx context.Context, a *app.App, o *signOptions, files []string, doc *signedReport) error {
	doc.Did = "signed"
	var key *minisign.PrivateKey
	for _, path := range files {
		body, err := readSmallFile(path)
		if err != nil {
			return err
		}
		r, err := history.Decode(body)
		if err != nil {
			return failure.Errorf(failure.Untrustworthy, "%s is not a record of a history: %w", path, err)
		}
		if a.Streams.Format == ui.Text && !a.Streams.Quiet {
			if err := printRecord(a, &recordReport{Record: r, Proof: proofUnsigned}); err != nil {
				return err
			}
		}
		if key == nil {
			if key, err = history.ReadPrivateKey(o.key, func() (string, error) { return password(ctx, a, o) }); err != nil {
				return err
			}
		}
		_, text, err := history.SignRecord(key, body)
		if err != nil {
			return err
		}
		if err := writeNew(path+".minisig", text, o.force); err != nil {
			return err
		}
		doc.Records = append(doc.Records, newSignedRecord(&r, path+".minisig"))
	}
	return nil
}

// password returns the password of an encrypted key.
func password(ctx context.Context, a *app.App, o *signOptions) (string, error) {
	if o.passwordFile == "" {
		return a.Streams.Password(ctx, "Password of "+o.key+":", "--password-file")
	}
	b, err := readSmallFile(o.passwordFile)
	if err != nil {
		return "", err
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return strings.TrimSuffix(string(line), "\r"), nil
}

// importSignatures keeps signatures that were made elsewhere.
func importSignatures(ctx context.Context, a *app.App, o *signOptions, doc *signedReport) error {
	e, _, err := newEngine(a)
	if err != nil {
		return err
	}
	doc.Did = "is signed now, by"
	for _, path := range o.imports {
		text, err := readSmallFile(path)
		if err != nil {
			return err
		}
		r, err := e.History().ImportSignature(ctx, text)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		doc.Records = append(doc.Records, newSignedRecord(&r, path))
		a.SetResult("the signature of record %d was imported", r.Counter)
	}
	return nil
}
