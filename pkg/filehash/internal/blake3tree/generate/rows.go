package main

import "fmt"

// rows writes the kernel for n lanes, each in 128 bits of a register.
func rows(class string, n int) {
	name := fmt.Sprintf("rows%d", n)
	r := func(i int) string { return fmt.Sprint(class, i) }
	const (
		h0, h1     = 0, 1
		a, b, c, d = 2, 3, 4, 5
		base       = 6 // d without flags
		spare      = 7 // to 10, the words as loaded
	)
	// The message words of a round: those of the column step, first and second
	// of each G, then those of the diagonal step.
	type vectors [4]int
	sets := [2]vectors{{11, 12, 13, 14}, {16, 17, 18, 19}}
	head(name)
	lanes := []string{"R8", "R9", "R10", "R11"}[:n]
	for i, p := range lanes {
		address(i, p)
	}
	start()

	line("\t// K1: word 1 of each lane. K2: word 3, the flags. K3, K4: flags and")
	line("\t// length of the last lane. K5: the lanes which are not done.")
	mask := func(bits int, k string) {
		op("MOVL", imm(bits), scratch)
		op("KMOVW", scratch, k)
	}
	mask(0x2222, "K1")
	mask(0x8888, "K2")
	op("MOVL", "$15", tailFlags)
	op("MOVL", "job_lastLane(SI)", scratch)
	op("SHLL", "$2", scratch)
	op("SHLXL", scratch, tailFlags, tailFlags)
	op("KMOVW", tailFlags, "K6")
	op("KANDW", "K2", "K6", "K3")
	mask(0x4444, "K4")
	op("VPBROADCASTD.Z", table("blockLen", []uint32{64, 64}), "K4", r(base))
	op("KANDW", "K4", "K6", "K4")
	mask(0x1111, "K5")
	op("VPBROADCASTD", "job_counter(SI)", "K5", r(base))
	op("MOVL", "job_counted(SI)", scratch)
	op("KMOVW", scratch, "K7")
	op("KANDW", "K5", "K7", "K7")
	op("VPADDD", table("rowLanes", []uint32{0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3}), r(base), "K7", r(base))
	op("VPBROADCASTD", "job_counter+4(SI)", "K1", r(base))
	op("KXNORW", "K5", "K5", "K5")

	row := func(first int) string {
		return fmt.Sprintf("iv<>+%d(SB)", 4*first)
	}
	load := "VBROADCASTI32X4"
	if class == "X" {
		load = "VMOVDQU32"
	}
	op(load, row(0), r(h0))
	op(load, row(4), r(h1))

	// The order of the words. The diagonal step leaves row b in place and
	// turns the others, so its G number i works in column i+1.
	order := [4][4]int{{0, 2, 4, 6}, {1, 3, 5, 7}, {14, 8, 10, 12}, {15, 9, 11, 13}}
	place := func(word int) (vector, at int) {
		for v := range order {
			for i, w := range order[v] {
				if w == word {
					return v, i
				}
			}
		}
		panic("no such word")
	}
	// Each vector of the next round comes from two of this round, save
	// perhaps the word in column 1, which is then shuffled in from a third.
	type mix struct{ first, second, third, shuffle int }
	var mixes [4]mix
	indexes := [4]int{20, 21, 22, 23}
	for v := range order {
		mixed := mix{-1, -1, -1, 0}
		index := [4]int{}
		for _, i := range []int{0, 2, 3, 1} {
			from, at := place(permutation[order[v][i]])
			switch {
			case mixed.first < 0 || mixed.first == from:
				mixed.first, index[i] = from, at
			case mixed.second < 0 || mixed.second == from:
				mixed.second, index[i] = from, at+4*n
			case i == 1:
				mixed.third, mixed.shuffle = from, at<<2
			default:
				panic("three sources are too many")
			}
		}
		mixes[v] = mixed
		op("VMOVDQU32", table(fmt.Sprint("mix", class, v), indexTable(index, n)), r(indexes[v]))
	}
	diagonal := [2]int{24, 25}
	for v := range diagonal {
		// From words 8..11 and words 12..15.
		index := [4]int{}
		for i, w := range order[2+v] {
			index[i] = w % 4
			if w >= 12 {
				index[i] += 4 * n
			}
		}
		op("VMOVDQU32", table(fmt.Sprint("diagonal", class, v), indexTable(index, n)), r(diagonal[v]))
	}
	const ivRow = 26
	op(load, row(0), r(ivRow))

	line("\nblock:")
	for part := range 4 {
		op("VMOVDQU32", fmt.Sprintf("%d(%s)(%s*1)", 16*part, lanes[0], offset), fmt.Sprint("X", spare+part))
		for i := 1; i < n; i++ {
			op("VINSERTI32X4", imm(i), fmt.Sprintf("%d(%s)(%s*1)", 16*part, lanes[i], offset), r(spare+part), r(spare+part))
		}
	}
	m := sets[0]
	op("VSHUFPS", "$0x88", r(spare+1), r(spare), r(m[0]))
	op("VSHUFPS", "$0xdd", r(spare+1), r(spare), r(m[1]))
	for v := range diagonal {
		op("VMOVDQA32", r(diagonal[v]), r(m[2+v]))
		op("VPERMI2D", r(spare+3), r(spare+2), r(m[2+v]))
	}
	op("VMOVDQA32", r(base), r(d))
	blockFlags(name)
	op("VPBROADCASTD", flags, "K2", r(d))
	op("CMPQ", tailBlocks, "$1")
	op("JNE", "compress")
	op("VPBROADCASTD", "job_tailLen(SI)", "K4", r(d))
	op("VPBROADCASTD", tailFlags, "K3", r(d))

	line("\ncompress:")
	op("VMOVDQA32", r(h0), r(a))
	op("VMOVDQA32", r(h1), r(b))
	op("VMOVDQA32", r(ivRow), r(c))
	for round := range rounds {
		line("\t// round %d", round+1)
		half := func(word, rotD, rotB int) {
			op("VPADDD", r(word), r(a), r(a))
			op("VPADDD", r(b), r(a), r(a))
			op("VPXORD", r(a), r(d), r(d))
			op("VPRORD", fmt.Sprint("$", rotD), r(d), r(d))
			op("VPADDD", r(d), r(c), r(c))
			op("VPXORD", r(c), r(b), r(b))
			op("VPRORD", fmt.Sprint("$", rotB), r(b), r(b))
		}
		turn := func(left, right int) {
			op("VPSHUFD", imm(right), r(a), r(a))
			op("VPSHUFD", "$0x4e", r(d), r(d))
			op("VPSHUFD", imm(left), r(c), r(c))
		}
		half(m[0], 16, 12)
		half(m[1], 8, 7)
		turn(0x39, 0x93)
		half(m[2], 16, 12)
		half(m[3], 8, 7)
		turn(0x93, 0x39)
		if round == rounds-1 {
			break
		}
		n := sets[(round+1)%2]
		for v, mixed := range mixes {
			op("VMOVDQA32", r(indexes[v]), r(n[v]))
			op("VPERMI2D", r(m[mixed.second]), r(m[mixed.first]), r(n[v]))
			if mixed.third >= 0 {
				op("VPSHUFD", imm(mixed.shuffle), r(m[mixed.third]), "K1", r(n[v]))
			}
		}
		m = n
	}
	op("VPXORD", r(c), r(a), "K5", r(h0))
	op("VPXORD", r(d), r(b), "K5", r(h1))
	op("CMPQ", tailBlocks, "$1")
	op("JNE", "done")
	op("KANDNW", "K5", "K6", "K5")
	line("\ndone:")
	next()

	if class == "X" {
		op("VMOVDQU32", r(h0), fmt.Sprintf("(%s)", out))
		op("VMOVDQU32", r(h1), fmt.Sprintf("16(%s)", out))
	} else {
		for i, first := range []uint32{0, 4} {
			op("VMOVDQU32", table(fmt.Sprint("join", i), []uint32{
				first, 0, first + 1, 0, first + 8, 0, first + 9, 0,
				first + 2, 0, first + 3, 0, first + 10, 0, first + 11, 0,
			}), r(a+i))
			op("VPERMI2Q", r(h1), r(h0), r(a+i))
			op("VMOVDQU32", r(a+i), fmt.Sprintf("%d(%s)", 64*i, out))
		}
	}
	op("VZEROUPPER")
	op("RET")
}

// indexTable repeats the choice of four words for each of n lanes, as VPERMI2D
// wants it: from the first source 0 to 4n-1, from the second 4n to 8n-1.
func indexTable(index [4]int, n int) []uint32 {
	var words []uint32
	for lane := range n {
		for _, i := range index {
			words = append(words, uint32(i+4*lane))
		}
	}
	return words
}
