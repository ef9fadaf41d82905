package policy

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/nft"
	"github.com/mobileops/mobileops/internal/network/segment"
	"github.com/mobileops/mobileops/internal/osthread"
	"github.com/mobileops/mobileops/internal/ruleset"
	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"
)

// Firewall enforces layouts by nf_tables. It is the segment.Firewall of the
// product; the zero value is ready.
type Firewall struct{}

var _ segment.Firewall = Firewall{}

// Plan returns what Apply would change: the flows that come and go, or one line
// when it is something else. The rules that are wanted are loaded into a network
// namespace that nothing else is in, so what differs is known exactly, and what
// the kernel cannot do before anything has changed.
func (Firewall) Plan(ctx context.Context, l *segment.Layout) ([]segment.Change, error) {
	p, err := Compile(l)
	if err != nil {
		return nil, err
	}
	wanted, err := p.rehearse(ctx)
	if err != nil {
		return nil, err
	}
	have, err := digest(ctx)
	if err != nil {
		return nil, err
	}
	switch have {
	case wanted:
		return nil, nil
	case "":
		return []segment.Change{{Sign: '+', Text: fmt.Sprintf("rules for %s, %s and %s: what no flow allows is denied", plural(len(l.Zones), "zone"), plural(len(l.Ports), "workload"), plural(len(l.Flows), "flow"))}}, nil
	}
	counted, err := readCounters()
	if err != nil {
		return nil, err
	}
	if changes := p.changes(counted); len(changes) > 0 {
		return changes, nil
	}
	return []segment.Change{{Sign: '~', Text: "rules of the segments"}}, nil
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// changes are the flows that come and those that go, by the comments of their
// rules.
func (p *Policy) changes(have counters) (list []segment.Change) {
	wanted := map[string]bool{}
	prefix := inetTable().String() + " "
	for _, f := range p.flows {
		for _, t := range f.traffic {
			text := counterKey(f.comment(t))
			if !wanted[text] && len(have[prefix+text]) == 0 {
				list = append(list, segment.Change{Sign: '+', Text: "flow " + text})
			}
			wanted[text] = true
		}
	}
	var gone []segment.Change
	for key, rules := range have {
		text := strings.TrimPrefix(key, prefix)
		if strings.HasPrefix(rules[0].Chain, "flow_") && !wanted[text] {
			gone = append(gone, segment.Change{Sign: '-', Text: "flow " + text})
		}
	}
	slices.SortFunc(gone, func(a, b segment.Change) int { return strings.Compare(a.Text, b.Text) })
	return append(list, gone...)
}

// Apply puts the rules of the layout into force, with what rules have counted,
// and ends connections that it does not allow any more.
func (Firewall) Apply(ctx context.Context, l *segment.Layout) error {
	p, err := Compile(l)
	if err != nil {
		return err
	}
	counted, err := readCounters()
	if err != nil {
		return err
	}
	if err := commit(p.batch(counted, false)); err != nil {
		return err
	}
	return p.cut()
}

// Remove takes the tables away. That there are none is no error.
func (Firewall) Remove(context.Context) error {
	b := nft.NewBatch()
	for _, t := range []nft.Table{inetTable(), bridgeTable()} {
		b.DestroyTable(t)
	}
	err := commit(b)
	if failure.KindOf(err) == failure.NotReady {
		return nil // a kernel without nf_tables has no tables
	}
	return err
}

// Digest identifies the rules that are in force, "" when there are none.
func (Firewall) Digest(ctx context.Context) (string, error) { return digest(ctx) }

// commit gives a batch to the kernel.
func commit(b *nft.Batch) error {
	c, err := nft.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	err = c.Commit(b)
	var refused *nft.Error
	switch {
	case errors.Is(err, unix.EPERM):
		return failure.Errorf(failure.NotAllowed, "only root changes the rules of the network: %w", err)
	case errors.As(err, &refused) && (refused.Errno == unix.ENOENT || refused.Errno == unix.EOPNOTSUPP || refused.Errno == unix.EAFNOSUPPORT || refused.Errno == unix.EPROTONOSUPPORT):
		return failure.Errorf(failure.NotReady, "the kernel lacks something of nf_tables (CONFIG_NF_TABLES_INET, CONFIG_NF_TABLES_BRIDGE, CONFIG_NFT_CT, CONFIG_NFT_MASQ, CONFIG_NFT_LOG, CONFIG_NFT_LIMIT); nothing was changed: %w", err)
	}
	return err
}

// rehearse loads the rules into a network namespace of their own, which ends
// with it, and returns their digest.
func (p *Policy) rehearse(ctx context.Context) (sum string, err error) {
	err = osthread.Run(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			kind := failure.NotReady
			if errors.Is(err, unix.EPERM) {
				kind = failure.NotAllowed
			}
			return failure.Errorf(kind, "make a network namespace to try the rules in: %w", err)
		}
		if err := commit(p.batch(nil, false)); err != nil {
			return err
		}
		sum, err = digest(ctx)
		return err
	})
	return sum, err
}

// digest is that of our tables in force, "" when there are none.
func digest(ctx context.Context) (string, error) {
	objects, err := ruleset.Objects(ctx, func(_ uint8, table string) bool { return table != tableName })
	switch {
	case errors.Is(err, unix.EPERM):
		return "", failure.Errorf(failure.NotAllowed, "only root sees the rules of the network: %w", err)
	case errors.Is(err, unix.EPROTONOSUPPORT):
		return "", nil
	case err != nil:
		return "", err
	case len(objects) == 0:
		return "", nil
	}
	lines := make([]string, len(objects))
	for i, o := range objects {
		lines[i] = fmt.Sprintf("%s %d %s %s", o.Kind, o.Family, o.Name, o.Digest)
	}
	slices.Sort(lines)
	sum := blake3.Sum256([]byte(strings.Join(lines, "\n")))
	return hex.EncodeToString(sum[:16]), nil
}

// readCounters reads what the rules in force have counted.
func readCounters() (counters, error) {
	r, err := nft.OpenReader()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	out := counters{}
	for _, t := range []nft.Table{inetTable(), bridgeTable()} {
		list, err := r.Counters(t)
		if errors.Is(err, unix.EPERM) {
			return nil, failure.Errorf(failure.NotAllowed, "only root sees the rules of the network: %w", err)
		}
		if err != nil {
			return nil, err
		}
		for _, c := range list {
			key := t.String() + " " + counterKey(c.Comment)
			out[key] = append(out[key], c)
		}
	}
	return out, nil
}
