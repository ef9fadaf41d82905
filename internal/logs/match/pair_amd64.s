#include "textflag.h"

// func indexPairAVX2(p *byte, n, off int, b1, m1, b2, m2 byte) int
//
// Compares 64 places at a time in both positions of the pair. What is left at
// the end is done by one block that overlaps those before: they held nothing.
TEXT ·indexPairAVX2(SB), NOSPLIT, $0-40
	MOVQ p+0(FP), SI
	MOVQ n+8(FP), CX
	MOVQ off+16(FP), DI
	ADDQ SI, DI
	VPBROADCASTB b1+24(FP), Y0
	VPBROADCASTB m1+25(FP), Y1
	VPBROADCASTB b2+26(FP), Y2
	VPBROADCASTB m2+27(FP), Y3
	XORQ AX, AX
	LEAQ -64(CX), DX

loop64:
	CMPQ AX, DX
	JGT  tail
	VPOR (SI)(AX*1), Y1, Y4
	VPOR (DI)(AX*1), Y3, Y5
	VPOR 32(SI)(AX*1), Y1, Y6
	VPOR 32(DI)(AX*1), Y3, Y7
	VPCMPEQB Y0, Y4, Y4
	VPCMPEQB Y2, Y5, Y5
	VPCMPEQB Y0, Y6, Y6
	VPCMPEQB Y2, Y7, Y7
	VPAND Y4, Y5, Y4
	VPAND Y6, Y7, Y6
	VPOR  Y4, Y6, Y8
	VPTEST Y8, Y8
	JNZ  found64
	ADDQ $64, AX
	JMP  loop64

found64:
	VPMOVMSKB Y4, R8
	TESTL R8, R8
	JNZ  hit
	ADDQ $32, AX
	VPMOVMSKB Y6, R8
	JMP  hit

tail:
	// Fewer than 64 places are left: at most two blocks of 32.
	LEAQ -32(CX), DX
	CMPQ AX, DX
	JGT  last
	VPOR (SI)(AX*1), Y1, Y4
	VPOR (DI)(AX*1), Y3, Y5
	VPCMPEQB Y0, Y4, Y4
	VPCMPEQB Y2, Y5, Y5
	VPAND Y4, Y5, Y4
	VPMOVMSKB Y4, R8
	TESTL R8, R8
	JNZ  hit

last:
	MOVQ DX, AX
	VPOR (SI)(AX*1), Y1, Y4
	VPOR (DI)(AX*1), Y3, Y5
	VPCMPEQB Y0, Y4, Y4
	VPCMPEQB Y2, Y5, Y5
	VPAND Y4, Y5, Y4
	VPMOVMSKB Y4, R8
	TESTL R8, R8
	JNZ  hit
	VZEROUPPER
	MOVQ $-1, ret+32(FP)
	RET

hit:
	BSFL R8, R8
	ADDQ R8, AX
	VZEROUPPER
	MOVQ AX, ret+32(FP)
	RET
