package journal

// What stands where, in bytes. All numbers are little endian.
const (
	signature = "LPKSHHRH"

	headerCompatible    = 8
	headerIncompatible  = 12
	headerState         = 16
	headerFileID        = 24
	headerMachineID     = 40
	headerSeqnumID      = 72
	headerSize          = 88
	headerArenaSize     = 96
	headerDataTable     = 104 // offset and size of the items of the hash table
	headerDataTableSize = 112
	headerTailObject    = 136
	headerEntries       = 152
	headerTailSeqnum    = 160
	headerHeadSeqnum    = 168
	headerEntryArray    = 176
	headerMin           = 208 // size of the oldest header that is read

	objectSize   = 8
	objectHeader = 16 // type, flags, six bytes, size

	dataHash       = 16
	dataNextHash   = 24
	dataEntry      = 40
	dataEntryArray = 48
	dataEntries    = 56
	dataRegular    = 64 // where the value begins
	dataCompact    = 72

	entrySeqnum    = 16
	entryRealtime  = 24
	entryMonotonic = 32
	entryBoot      = 40
	entryXor       = 56
	entryItems     = 64

	arrayNext  = 16
	arrayItems = 24

	tagSize = 64
)

// Types of objects.
const (
	typeData           = 1
	typeField          = 2
	typeEntry          = 3
	typeDataHashTable  = 4
	typeFieldHashTable = 5
	typeEntryArray     = 6
	typeTag            = 7
)

// typeNames are used in messages.
var typeNames = [...]string{"unused object", "data object", "field object", "entry", "data hash table", "field hash table", "entry array", "tag"}

// minSizes are the least sizes of the objects of each type: those of regular
// files, of which compact ones are not smaller.
var minSizes = [...]uint64{0, dataRegular + 1, 41, entryItems + 4, 32, 32, arrayItems + 4, tagSize}

// Flags of data objects.
const (
	flagXZ   = 1
	flagLZ4  = 2
	flagZSTD = 4
)

// Bits of incompatible_flags.
const (
	incompatibleXZ    = 1
	incompatibleLZ4   = 2
	incompatibleKeyed = 4
	incompatibleZSTD  = 8
	incompatibleSmall = 16 // compact

	incompatibleKnown = incompatibleXZ | incompatibleLZ4 | incompatibleKeyed | incompatibleZSTD | incompatibleSmall
)

// stateOnline is that of a file that is being written, or whose writer died.
const stateOnline = 1

// maxTime is the greatest time, in microseconds, that systemd lets pass as one
// of the clock or since boot.
const maxTime = 1<<55 - 1
