"""Colours of maps and pictures: red, green, blue, each 0 to 255."""

Rgb = tuple[int, int, int]
Rgba = tuple[int, int, int, int]  # and opacity

UNCHANGED: Rgb = (222, 222, 222)
CHANGED: Rgb = (215, 25, 28)
LABELLED: Rgb = (0, 84, 166)

# Found by search: with full colour vision as with none of one cone (protan, deutan, tritan as simulated by
# Machado et al. 2009), the four differ from each other and from the pale map by 40 or more in CIELAB.
HIT: Rgb = (5, 119, 63)
MISS: Rgb = (251, 158, 34)
FALSE_ALARM: Rgb = (119, 15, 148)
UNLABELLED: Rgb = (15, 16, 19)

FIRST_RUN: Rgb = (33, 102, 172)
SECOND_RUN: Rgb = (230, 97, 1)

NO_DATA: Rgb = (236, 236, 236)
NO_DATA_STRIPE: Rgb = (188, 188, 188)
TRANSPARENT: Rgba = (0, 0, 0, 0)

# Matplotlib's magma (S. van der Walt and N. Smith, 2015, CC0) from its end: 256 times red, green, blue, in hexadecimal.
MAGMA_FROM_BRIGHT = bytes.fromhex(
    "fbfcbffbfabdfbf9bbfbf7b9fcf5b7fcf3b5fcf1b3fcf0b1fceeb0fcecaefceaacfce8aafce6a8fce5a6fce3a5fde1a3fddfa1fddd9f"
    "fddc9dfdda9cfdd89afdd698fdd497fdd295fdd193fdcf92fdcd90fecb8efec98dfec78bfec689fec488fec286fec085febe83febc82"
    "febb80feb97ffeb77dfeb57cfeb37bfeb179feaf78feae76feac75feaa74fea873fea671fda470fda26ffda16efd9f6cfd9d6bfd9b6a"
    "fd9969fd9768fd9567fc9366fc9265fc9064fc8e63fc8c63fb8a62fb8861fb8660fb8460fa825ffa805efa7f5ef97d5df97b5df9795c"
    "f8775cf8755cf7735cf7715bf6705bf66e5bf56c5bf56a5bf4685bf3675bf3655cf2635cf1615cf0605def5e5dee5d5dee5b5eed595f"
    "ec585feb5660ea5560e85461e75262e65162e55063e44e64e24d65e14c66e04b66de4a67dd4968dc4869da4769d9466ad7456bd6446c"
    "d4436dd3426dd1426ed0416fce4070cd3f70cb3e71ca3e72c83d72c63c73c53c74c33b74c23a75c03a75be3976bd3977bb3877b93778"
    "b83778b63679b53679b3357ab1357ab0347bae347bac337bab337ca9327ca7317da6317da4307da3307ea12f7e9f2f7e9e2e7e9c2e7f"
    "9a2d7f992d7f972c7f952c80942b80922b80912a808f2a808d29808c29808a28818928818727818526818426818225818125817f2481"
    "7e24817c23817a2281792281772181762181742081731f81711f816f1e816e1e816c1d806b1c80691c80681b80661a80651a8063197f"
    "61187f60187f5e177f5d177e5b167e5a157e58157e57147d55137d53137c52127c50127b4f117b4d117a4b10794a1079481078470f77"
    "450f76430f75420f74400f733e0f723c0f713b0f6f390f6e370f6c350f6a3410683210673010652f10622d10602b115e2a115c281159"
    "26115725115523115222115020114d1f114b1e10491c10461b10441a1041180f3f170f3c160e3a150e38140d35120d33110c31100c2f"
    "0f0b2c0e0a2a0d0a280c09260b08240a072209071f08061d07051b06051905041704041504031303031102020f02020d01010b010109"
    "010007000006000004000003"
)


def opaque(color: Rgb) -> Rgba:
    """A colour that nothing shows through."""
    return (*color, 255)
