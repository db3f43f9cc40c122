"""What the ground, plants and roofs of the synthetic scenes look like: made-up 10-bit spectra and textures."""

from dataclasses import dataclass

Spectrum = tuple[float, float, float, float]


@dataclass(frozen=True)
class Material:
    """A surface as the sensor would see it in full sun.

    Attributes:
        spectrum: Red, green, blue and near infrared in 10-bit digital numbers.
        grain: Relative amplitude of pixel-to-pixel texture.
        patches: Relative amplitude of texture some 10 pixels wide.
        furrows: Relative amplitude of parallel lines.
        canopy: Relative amplitude of tree-crown texture.
        damp: Share by which the near infrared and the brightness drift across some 50 pixels.
    """

    spectrum: Spectrum
    grain: float = 0.04
    patches: float = 0.04
    furrows: float = 0.0
    canopy: float = 0.0
    damp: float = 0.0


MATERIALS: dict[str, Material] = {
    # fields, by season
    "ploughed_wet": Material((170, 145, 125, 210), 0.04, 0.04, 0.06, damp=0.10),
    "ploughed_dry": Material((420, 370, 300, 485), 0.03, 0.03, 0.04, damp=0.08),
    "sprouting": Material((215, 228, 160, 450), 0.04, 0.04, 0.06, damp=0.10),
    "green_crop": Material((120, 165, 105, 620), 0.04, 0.04, 0.05, damp=0.08),
    "lush_crop": Material((88, 140, 84, 720), 0.04, 0.04, 0.04, damp=0.06),
    "ripe_crop": Material((470, 430, 290, 590), 0.03, 0.03, 0.04, damp=0.05),
    "stubble": Material((450, 410, 322, 525), 0.03, 0.03, 0.05, damp=0.06),
    "loose_straw": Material((620, 570, 430, 700), 0.03, 0.03, 0.04, damp=0.05),
    "meadow_green": Material((165, 198, 125, 560), 0.06, 0.09, damp=0.12),
    "meadow_dry": Material((275, 265, 175, 470), 0.06, 0.09, damp=0.12),
    "verge": Material((215, 215, 150, 440), 0.08, 0.10, damp=0.06),
    "garden": Material((178, 192, 135, 455), 0.12, 0.16, damp=0.08),
    # nature
    "forest_summer": Material((84, 116, 74, 450), 0.08, 0.06, canopy=0.34, damp=0.05),
    "forest_autumn": Material((118, 108, 66, 380), 0.06, 0.08, canopy=0.34, damp=0.05),
    "tree": Material((88, 118, 76, 430), 0.12, 0.08),
    "water": Material((58, 84, 96, 38), 0.02, 0.02, damp=0.04),
    "sand": Material((560, 510, 410, 610), 0.04, 0.05),
    # roads and yards
    "asphalt": Material((248, 250, 256, 250), 0.03, 0.02),
    "dirt": Material((390, 345, 280, 430), 0.05, 0.06),
    "gravel": Material((570, 550, 500, 580), 0.05, 0.04),
    "concrete": Material((590, 582, 560, 590), 0.03, 0.03),
    "rubble": Material((265, 232, 192, 280), 0.14, 0.12),
    "building_site": Material((640, 560, 450, 650), 0.06, 0.07),
    "quarry": Material((660, 615, 520, 700), 0.07, 0.10),
    "felled": Material((400, 325, 245, 450), 0.14, 0.14),
    # roofs
    "white_roof": Material((715, 720, 720, 680), 0.015, 0.015),
    "pale_roof": Material((615, 610, 600, 605), 0.02, 0.02),
    "grey_roof": Material((385, 388, 395, 390), 0.03, 0.02),
    "red_roof": Material((560, 310, 235, 540), 0.03, 0.02),
    "brown_roof": Material((330, 240, 200, 350), 0.03, 0.02),
    "blue_roof": Material((300, 440, 620, 450), 0.02, 0.02),
}

DARK_CROPS = ("ploughed_wet", "green_crop", "lush_crop", "sprouting")
BRIGHTEST_CROP = "loose_straw"
BRIGHT_CROPS = ("ploughed_dry", "ripe_crop", "stubble", BRIGHTEST_CROP)
MEADOWS = ("meadow_green", "meadow_dry")
HOUSE_ROOFS = ("red_roof", "grey_roof", "brown_roof", "pale_roof", "white_roof")
HALL_ROOFS = ("white_roof", "pale_roof", "blue_roof", "white_roof")
