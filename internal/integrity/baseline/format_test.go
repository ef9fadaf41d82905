package baseline

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/mobileops/mobileops/pkg/filehash"
	"github.com/zeebo/blake3"
	bolt "go.etcd.io/bbolt"
)

// What follows is a reader of baselines that was written from
// docs/formats/baseline.md alone, as somebody in another language would write
// it: it shares neither code nor constants with the package, and keeps numbers
// as wide as the page allows. What it finds is compared with what was written.

// pageRecord is a record in the words of the page.
type pageRecord struct {
	dir, name                              string
	mode, uid, gid, device, flags, content uint64
	links, inode, size                     uint64
	mtime, ctime, btime                    [2]int64 // seconds, nanoseconds
	target                                 string
	rdev                                   uint64
	attributes                             [][2]string
	digest                                 string
}

var errPage = errors.New("not as the page says")

// pageBytes reads the encodings of the page, and panics with errPage where
// something is not as it says.
type pageBytes struct{ b []byte }

func (p *pageBytes) take(n uint64) []byte {
	if n > uint64(len(p.b)) {
		panic(fmt.Errorf("%w: %d bytes wanted, %d left", errPage, n, len(p.b)))
	}
	b := p.b[:n]
	p.b = p.b[n:]
	return b
}

// uvarint: seven bits a byte, the lowest first, the eighth says that more follow.
func (p *pageBytes) uvarint() uint64 {
	v := new(big.Int)
	for shift := uint(0); ; shift += 7 {
		b := p.take(1)[0]
		v.Or(v, new(big.Int).Lsh(big.NewInt(int64(b&0x7f)), shift))
		if b < 0x80 {
			break
		}
	}
	if !v.IsUint64() {
		panic(fmt.Errorf("%w: a number of more than 64 bits", errPage))
	}
	return v.Uint64()
}

// zigzag: 0, -1, 1, -2, 2 are written as 0, 1, 2, 3, 4.
func (p *pageBytes) zigzag() int64 {
	u := p.uvarint()
	if u%2 == 0 {
		return int64(u / 2)
	}
	return -int64(u/2) - 1
}

func (p *pageBytes) text() string { return string(p.take(p.uvarint())) }

// readAsThePageSays returns header, policy, records, number of blocks and root of a
// baseline.
func readAsThePageSays(path string) (header map[string]any, policy string, list []pageRecord, blocks int, root string, err error) {
	defer func() {
		if p := recover(); p != nil {
			var ok bool
			if err, ok = p.(error); !ok || !errors.Is(err, errPage) {
				panic(p)
			}
		}
	}()
	db, err := bolt.Open(path, 0o400, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return nil, "", nil, 0, "", err
	}
	defer db.Close()
	unzstd, err := zstd.NewReader(nil)
	if err != nil {
		return nil, "", nil, 0, "", err
	}
	defer unzstd.Close()
	err = db.View(func(tx *bolt.Tx) error {
		var buckets []string
		if err := tx.ForEach(func(name []byte, _ *bolt.Bucket) error {
			buckets = append(buckets, string(name))
			return nil
		}); err != nil || strings.Join(buckets, " ") != "blocks meta" {
			return fmt.Errorf("%w: buckets %q, %v", errPage, buckets, err)
		}
		head := tx.Bucket([]byte("meta")).Get([]byte("header"))
		policy = string(tx.Bucket([]byte("meta")).Get([]byte("policy")))
		if err := json.Unmarshal(head, &header); err != nil {
			return err
		}
		leaf := func(n uint64, parts ...[]byte) string {
			h := blake3.New()
			h.Write([]byte{0})
			h.Write(binary.BigEndian.AppendUint64(nil, n))
			for _, p := range parts {
				h.Write(p)
			}
			return string(h.Sum(nil))
		}
		leaves := []string{leaf(0, binary.BigEndian.AppendUint64(nil, uint64(len(head))), head, []byte(policy))}
		before := ""
		err := tx.Bucket([]byte("blocks")).ForEach(func(k, v []byte) error {
			if n := len(leaves) - 1; !bytes.Equal(k, []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}) {
				return fmt.Errorf("%w: block %d has the key %x", errPage, n, k)
			}
			leaves = append(leaves, leaf(uint64(len(leaves)), v))
			block := readBlock(v, unzstd)
			for _, r := range block {
				if key := pageKey(r); key <= before {
					return fmt.Errorf("%w: %q is not after %q", errPage, key, before)
				} else {
					before = key
				}
			}
			list = append(list, block...)
			return nil
		})
		blocks, root = len(leaves)-1, pageRoot(leaves)
		return err
	})
	return header, policy, list, blocks, root, err
}

// pageKey is a text that sorts bytewise in the order of the page: by directory,
// component by component, a parent before what is below it, then by name.
func pageKey(r pageRecord) string {
	if r.dir == "" {
		return "\x00" // "/" itself
	}
	// No name contains a zero byte, so "\x00\x00" ends a directory before any
	// component that could follow.
	return strings.ReplaceAll(strings.TrimSuffix(r.dir, "/"), "/", "\x00\x01") + "\x00\x00" + r.name
}

func pageRoot(leaves []string) string {
	if len(leaves) == 1 {
		return leaves[0]
	}
	k := 1
	for 2*k < len(leaves) {
		k *= 2
	}
	sum := blake3.Sum256([]byte("\x01" + pageRoot(leaves[:k]) + pageRoot(leaves[k:])))
	return string(sum[:])
}

func readBlock(b []byte, unzstd *zstd.Decoder) []pageRecord {
	p := pageBytes{b}
	first := p.text()
	records, unpacked := p.uvarint(), p.uvarint()
	packed, digests := p.text(), p
	if records < 1 || records > 4096 || unpacked > 8<<20 {
		panic(fmt.Errorf("%w: %d records, %d bytes", errPage, records, unpacked))
	}
	raw, err := unzstd.DecodeAll([]byte(packed), nil)
	if err != nil || uint64(len(raw)) != unpacked {
		panic(fmt.Errorf("%w: %d bytes unpacked of %d: %v", errPage, len(raw), unpacked, err))
	}
	all := pageBytes{raw}
	var lengths [18]uint64
	for i := range lengths {
		lengths[i] = all.uvarint()
	}
	var col [18]pageBytes
	for i := range col {
		col[i] = pageBytes{all.take(lengths[i])}
	}

	list := make([]pageRecord, records)
	var owners [][6]uint64
	dir, left := "", uint64(0)
	var before pageRecord
	for i := range list {
		r := &list[i]
		if left == 0 {
			shared := col[0].uvarint()
			dir = dir[:shared] + col[0].text()
			left = col[0].uvarint()
		}
		left--
		r.dir = dir
		shared := col[1].uvarint()
		if shared > 0 && before.dir != dir {
			panic(fmt.Errorf("%w: a name shares with one of another directory", errPage))
		}
		r.name = before.name[:shared] + string(col[3].take(col[2].uvarint()))
		owner := col[4].uvarint()
		if owner == uint64(len(owners)) {
			var o [6]uint64
			for j := range o {
				o[j] = col[5].uvarint()
			}
			owners = append(owners, o)
		}
		o := owners[owner]
		r.mode, r.uid, r.gid, r.device, r.flags, r.content = o[0], o[1], o[2], o[3], o[4], o[5]
		r.links = col[6].uvarint()
		r.inode = before.inode + uint64(col[7].zigzag())
		r.size = col[8].uvarint()
		for j := range 2 {
			r.mtime[j] = before.mtime[j] + col[9+j].zigzag()
			r.ctime[j] = before.ctime[j] + col[11+j].zigzag()
			r.btime[j] = r.ctime[j] + col[13+j].zigzag()
		}
		switch r.mode & 0o170000 {
		case 0o120000:
			r.target = col[15].text()
		case 0o020000, 0o060000:
			r.rdev = col[16].uvarint()
		}
		for range col[17].uvarint() {
			r.attributes = append(r.attributes, [2]string{col[17].text(), col[17].text()})
		}
		if r.content == 1 {
			r.digest = string(digests.take(32))
		}
		before = *r
	}
	for i := range col {
		if len(col[i].b) > 0 {
			panic(fmt.Errorf("%w: column %d goes on behind the last record", errPage, i))
		}
	}
	if len(all.b) > 0 || len(digests.b) > 0 || left > 0 || first != list[0].dir+"\x00"+list[0].name {
		panic(fmt.Errorf("%w: something is left of a block, or its first key is %q", errPage, first))
	}
	return list
}

// TestFormatIsThatOfThePage: what docs/formats/baseline.md says is enough to
// read a baseline, all of it.
func TestFormatIsThatOfThePage(t *testing.T) {
	list := generate(rand.New(rand.NewPCG(6, 6)), 20000)
	slash := Record{Dir: []byte{}, Name: []byte("/"), Info: filehash.Info{Mode: 0o040755, Ino: 2, Links: 20}}
	list = append([]Record{slash}, list...)
	for i := range list {
		if list[i].Content == filehash.Hashed {
			list[i].Info.Size %= 1 << 30 // so that their sum is exact in JSON
		}
	}
	h := Header{
		ID: "00112233445566ff", Name: "web", Started: time.Unix(1795300000, 0).UTC(), Finished: time.Unix(1795300009, 0).UTC(),
		Host: "web1", MachineID: strings.Repeat("a", 32), Tree: "/srv", Tool: "mobileops 1", UID: 7, PolicyName: "p", PolicyDigest: Hash{31: 1},
		Unread: [][]byte{[]byte("/lost\xff")},
	}
	path, root := writeAs(t, list, &h, "version: 1\n")
	header, policy, got, blocks, gotRoot, err := readAsThePageSays(path)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprintf("%x", gotRoot) != root.String() || policy != "version: 1\n" {
		t.Errorf("root %x, want %v; policy %q", gotRoot, root, policy)
	}
	var files, size, unreadable, unstable float64
	for i := range list {
		switch list[i].Content {
		case filehash.Hashed:
			files, size = files+1, size+float64(list[i].Info.Size)
		case filehash.Unreadable:
			unreadable++
		case filehash.Unstable:
			unstable++
		}
	}
	want := map[string]any{
		"schema": "mobileops.integrity.baseline/v1", "id": "00112233445566ff", "name": "web",
		"started": "2026-11-21T22:26:40Z", "finished": "2026-11-21T22:26:49Z", "host": "web1", "machine_id": strings.Repeat("a", 32),
		"tree": "/srv", "tool": "mobileops 1", "uid": 7.0, "policy_name": "p", "policy_digest": strings.Repeat("0", 62) + "01",
		"unread":  []any{base64.StdEncoding.EncodeToString([]byte("/lost\xff"))},
		"entries": float64(len(list)), "files": files, "unreadable": unreadable, "unstable": unstable,
		"bytes": size, "blocks": float64(blocks),
	}
	if !reflect.DeepEqual(header, want) {
		t.Errorf("header %v\nwant   %v", header, want)
	}
	if len(got) != len(list) {
		t.Fatalf("%d records, want %d", len(got), len(list))
	}
	for i := range list {
		if want := inPageWords(&list[i]); !reflect.DeepEqual(got[i], want) {
			t.Fatalf("record %d is %+v\nwant %+v", i, got[i], want)
		}
	}
}

// inPageWords is what was written, as the page's reader is to find it.
func inPageWords(r *Record) pageRecord {
	i := &r.Info
	p := pageRecord{
		dir: string(r.Dir), name: string(r.Name), mode: uint64(i.Mode), uid: uint64(i.UID), gid: uint64(i.GID), device: i.Dev,
		flags: uint64(i.Flags), links: uint64(i.Links), inode: i.Ino, size: uint64(i.Size), rdev: i.Rdev, target: string(r.Target),
		mtime: [2]int64{i.Mtime.Sec, int64(i.Mtime.Nsec)}, ctime: [2]int64{i.Ctime.Sec, int64(i.Ctime.Nsec)}, btime: [2]int64{i.Btime.Sec, int64(i.Btime.Nsec)},
		content: map[filehash.Content]uint64{filehash.NoContent: 0, filehash.Hashed: 1, filehash.Unreadable: 3, filehash.Unstable: 4}[r.Content],
	}
	for _, x := range r.Xattrs {
		p.attributes = append(p.attributes, [2]string{x.Name, string(x.Value)})
	}
	if r.Content == filehash.Hashed {
		p.digest = string(r.Sum[:])
	}
	return p
}
