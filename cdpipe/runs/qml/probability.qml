<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis version="3.22.0" styleCategories="Symbology">
  <pipe>
    <rasterrenderer type="singlebandpseudocolor" band="1" opacity="1" alphaBand="-1" nodataColor="" classificationMin="0" classificationMax="1">
      <rasterTransparency />
      <rastershader>
        <colorrampshader colorRampType="INTERPOLATED" classificationMode="1" clip="0" minimumValue="0" maximumValue="1">
          <item value="0" label="0%" color="#fbfcbf" alpha="0" />
          <item value="0.125" label="12.5%" color="#fec286" alpha="60" />
          <item value="0.25" label="25%" color="#fb8660" alpha="120" />
          <item value="0.375" label="37.5%" color="#e55063" alpha="160" />
          <item value="0.5" label="50%" color="#b53679" alpha="200" />
          <item value="0.625" label="62.5%" color="#822581" alpha="230" />
          <item value="0.75" label="75%" color="#50127b" alpha="255" />
          <item value="0.875" label="87.5%" color="#1c1046" alpha="255" />
          <item value="1" label="100%" color="#000003" alpha="255" />
        </colorrampshader>
      </rastershader>
    </rasterrenderer>
  </pipe>
</qgis>
