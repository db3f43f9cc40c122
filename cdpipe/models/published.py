"""How the published xView2 second-place networks call their weights, and what ours are called.

Pairs of a pattern and its replacement; the first whose pattern fits a name applies.
"""

Rules = tuple[tuple[str, str], ...]

DECODER: Rules = (
    (r"^(decoder_stages\.\d|last_upsample)\.layer\.", r"\1."),
    (r"^(bottlenecks\.\d)\.seq\.", r"\1."),
    (r"^final\.0\.", "final."),
)
_LAYERS: Rules = (
    (r"^encoder_stages\.1\.1\.", "encoder.layer1."),
    (r"^encoder_stages\.([234])\.", r"encoder.layer\1."),
)
# A published stage counts its blocks from 1 after a pooling layer and from 0 otherwise; DPN's own names from 1.
_DPN_BLOCKS = {1: (1, 3), 2: (0, 4), 3: (0, 20), 4: (0, 3)}

# Of encoders, by family.
SENET: Rules = ((r"^encoder_stages\.0\.", "encoder.layer0."), *_LAYERS)
RESNET: Rules = (
    (r"^encoder_stages\.0\.0\.", "encoder.conv1."),
    (r"^encoder_stages\.0\.1\.", "encoder.bn1."),
    *_LAYERS,
)
DENSENET: Rules = (
    (r"^encoder_stages\.0\.0\.", "encoder.features.conv0."),
    (r"^encoder_stages\.0\.1\.", "encoder.features.norm0."),
    (r"^encoder_stages\.2\.0\.", "encoder.features.transition1."),
    (r"^encoder_stages\.3\.0\.", "encoder.features.transition2."),
    (r"^encoder_stages\.4\.0\.", "encoder.features.transition3."),
    (r"^encoder_stages\.4\.2\.", "encoder.features.norm5."),
    (r"^encoder_stages\.([1234])\.1\.", r"encoder.features.denseblock\1."),
)
DPN: Rules = (
    (r"^encoder_stages\.0\.0\.", "encoder.features.conv1_1.conv."),
    (r"^encoder_stages\.0\.1\.", "encoder.features.conv1_1.bn."),
    *(
        (rf"^encoder_stages\.{stage}\.{first + block}\.", f"encoder.features.conv{stage + 1}_{block + 1}.")
        for stage, (first, blocks) in _DPN_BLOCKS.items()
        for block in range(blocks)
    ),
    (r"^encoder_stages\.4\.3\.", "encoder.features.conv5_bn_ac."),
)
