<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis version="3.22.0" styleCategories="Symbology">
  <pipe>
    <rasterrenderer type="singlebandpseudocolor" band="1" opacity="1" alphaBand="-1" nodataColor="" classificationMin="0" classificationMax="1">
      <rasterTransparency />
      <rastershader>
        <colorrampshader colorRampType="INTERPOLATED" classificationMode="1" clip="0" minimumValue="0" maximumValue="1">
          <item value="0" label="0%" color="#ffffb2" alpha="0" />
          <item value="0.25" label="25%" color="#fecc5c" alpha="120" />
          <item value="0.5" label="50%" color="#fd8d3c" alpha="200" />
          <item value="0.75" label="75%" color="#f03b20" alpha="255" />
          <item value="1" label="100%" color="#bd0026" alpha="255" />
        </colorrampshader>
      </rastershader>
    </rasterrenderer>
  </pipe>
</qgis>
