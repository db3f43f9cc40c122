<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis version="3.22.0" styleCategories="Symbology">
  <pipe>
    <rasterrenderer type="paletted" band="1" opacity="1" alphaBand="-1" nodataColor="">
      <rasterTransparency />
      <colorPalette>
        <paletteEntry value="0" color="#dedede" alpha="0" label="unchanged" />
        <paletteEntry value="1" color="#d7191c" alpha="255" label="changed" />
      </colorPalette>
    </rasterrenderer>
  </pipe>
</qgis>
