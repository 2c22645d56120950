#include "textflag.h"

// func markAVX2(text *byte, marks *uint64, n int)
TEXT ·markAVX2(SB), NOSPLIT, $0-24
	MOVQ text+0(FP), SI
	MOVQ marks+8(FP), DI
	MOVQ n+16(FP), CX

	// Y0 is quotes, Y1 backslashes, Y2 spaces.
	MOVL         $0x22222222, AX
	MOVL         $0x5c5c5c5c, BX
	MOVL         $0x20202020, DX
	VMOVD        AX, X0
	VMOVD        BX, X1
	VMOVD        DX, X2
	VPBROADCASTD X0, Y0
	VPBROADCASTD X1, Y1
	VPBROADCASTD X2, Y2

window:
	VMOVDQU   (SI), Y3
	VMOVDQU   32(SI), Y4
	VPCMPEQB  Y3, Y0, Y5
	VPCMPEQB  Y4, Y0, Y6
	VPCMPEQB  Y3, Y1, Y7
	VPCMPEQB  Y4, Y1, Y8
	VPCMPGTB  Y3, Y2, Y9   // below the space, which all beyond ASCII is as a signed byte
	VPCMPGTB  Y4, Y2, Y10
	VPOR      Y5, Y7, Y5
	VPOR      Y6, Y8, Y6
	VPOR      Y5, Y9, Y5
	VPOR      Y6, Y10, Y6
	VPMOVMSKB Y5, AX
	VPMOVMSKB Y6, BX
	SHLQ      $32, BX
	ORQ       BX, AX
	MOVQ      AX, (DI)
	ADDQ      $64, SI
	ADDQ      $8, DI
	DECQ      CX
	JNZ       window

	VZEROUPPER
	RET
