package vulndb

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
)

// Content is what a file is that could be taken in.
type Content string

// The contents.
const (
	Database Content = "database" // or anything else: Import says what is wrong with it
	KEVList  Content = "kev"
	EPSSList Content = "epss"
)

// Recognize tells by the first bytes of a file which of the imports takes it.
func Recognize(path string) (Content, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return Database, nil
	}
	f, err := openPlain(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	head := make([]byte, 4096)
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return "", err
	}
	if head = head[:n]; bytes.HasPrefix(head, []byte{0x1f, 0x8b}) {
		unpacked := make([]byte, 512)
		if zr, err := gzip.NewReader(bytes.NewReader(head)); err == nil {
			n, _ := io.ReadFull(zr, unpacked) // what is missing of it comes after head
			head = unpacked[:n]
		}
	}
	head = bytes.TrimLeft(head, "\xef\xbb\xbf \t\r\n\"")
	switch {
	case bytes.HasPrefix(head, []byte("#model_version")), bytes.HasPrefix(head, []byte("cve,epss")):
		return EPSSList, nil
	case bytes.HasPrefix(head, []byte("{")):
		return KEVList, nil
	}
	return Database, nil
}
