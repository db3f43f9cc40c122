<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis version="3.22.0" styleCategories="Symbology|Fields|Forms">
  <fieldConfiguration>
    <field name="change">
      <editWidget type="ValueMap">
        <config>
          <Option type="Map">
            <Option type="List" name="map">
              <Option type="Map"><Option type="QString" name="changed" value="1" /></Option>
              <Option type="Map"><Option type="QString" name="not changed" value="0" /></Option>
              <Option type="Map"><Option type="QString" name="unsure" value="unsure" /></Option>
            </Option>
          </Option>
        </config>
      </editWidget>
    </field>
  </fieldConfiguration>
  <editable>
    <field name="fid" editable="0" />
    <field name="id" editable="0" />
    <field name="pair_id" editable="0" />
    <field name="change" editable="1" />
  </editable>
  <renderer-v2 type="categorizedSymbol" attr="change" symbollevels="0" enableorderby="0" forceraster="0">
    <categories>
      <category value="1" symbol="0" label="changed (1)" render="true" type="string" />
      <category value="0" symbol="1" label="not changed (0)" render="true" type="string" />
      <category value="unsure" symbol="2" label="unsure" render="true" type="string" />
      <category value="" symbol="3" label="to label" render="true" type="string" />
    </categories>
    <symbols>
      <symbol type="marker" name="0" alpha="1" clip_to_extent="1" force_rhr="0">
        <layer class="SimpleMarker" enabled="1" locked="0" pass="0">
          <Option type="Map">
            <Option type="QString" name="color" value="0,0,0,0" />
            <Option type="QString" name="name" value="circle" />
            <Option type="QString" name="outline_color" value="20,20,20,255" />
            <Option type="QString" name="outline_style" value="solid" />
            <Option type="QString" name="outline_width" value="0.9" />
            <Option type="QString" name="outline_width_unit" value="MM" />
            <Option type="QString" name="size" value="4" />
            <Option type="QString" name="size_unit" value="MM" />
          </Option>
        </layer>
        <layer class="SimpleMarker" enabled="1" locked="0" pass="0">
          <Option type="Map">
            <Option type="QString" name="color" value="215,25,28,255" />
            <Option type="QString" name="name" value="circle" />
            <Option type="QString" name="outline_color" value="255,255,255,255" />
            <Option type="QString" name="outline_style" value="solid" />
            <Option type="QString" name="outline_width" value="0.5" />
            <Option type="QString" name="outline_width_unit" value="MM" />
            <Option type="QString" name="size" value="4" />
            <Option type="QString" name="size_unit" value="MM" />
          </Option>
        </layer>
      </symbol>
      <symbol type="marker" name="1" alpha="1" clip_to_extent="1" force_rhr="0">
        <layer class="SimpleMarker" enabled="1" locked="0" pass="0">
          <Option type="Map">
            <Option type="QString" name="color" value="0,0,0,0" />
            <Option type="QString" name="name" value="circle" />
            <Option type="QString" name="outline_color" value="20,20,20,255" />
            <Option type="QString" name="outline_style" value="solid" />
            <Option type="QString" name="outline_width" value="0.9" />
            <Option type="QString" name="outline_width_unit" value="MM" />
            <Option type="QString" name="size" value="4" />
            <Option type="QString" name="size_unit" value="MM" />
          </Option>
        </layer>
        <layer class="SimpleMarker" enabled="1" locked="0" pass="0">
          <Option type="Map">
            <Option type="QString" name="color" value="0,84,166,255" />
            <Option type="QString" name="name" value="circle" />
            <Option type="QString" name="outline_color" value="255,255,255,255" />
            <Option type="QString" name="outline_style" value="solid" />
            <Option type="QString" name="outline_width" value="0.5" />
            <Option type="QString" name="outline_width_unit" value="MM" />
            <Option type="QString" name="size" value="4" />
            <Option type="QString" name="size_unit" value="MM" />
          </Option>
        </layer>
      </symbol>
      <symbol type="marker" name="2" alpha="1" clip_to_extent="1" force_rhr="0">
        <layer class="SimpleMarker" enabled="1" locked="0" pass="0">
          <Option type="Map">
            <Option type="QString" name="color" value="0,0,0,0" />
            <Option type="QString" name="name" value="circle" />
            <Option type="QString" name="outline_color" value="20,20,20,255" />
            <Option type="QString" name="outline_style" value="solid" />
            <Option type="QString" name="outline_width" value="0.9" />
            <Option type="QString" name="outline_width_unit" value="MM" />
            <Option type="QString" name="size" value="4" />
            <Option type="QString" name="size_unit" value="MM" />
          </Option>
        </layer>
        <layer class="SimpleMarker" enabled="1" locked="0" pass="0">
          <Option type="Map">
            <Option type="QString" name="color" value="150,150,150,255" />
            <Option type="QString" name="name" value="circle" />
            <Option type="QString" name="outline_color" value="255,255,255,255" />
            <Option type="QString" name="outline_style" value="solid" />
            <Option type="QString" name="outline_width" value="0.5" />
            <Option type="QString" name="outline_width_unit" value="MM" />
            <Option type="QString" name="size" value="4" />
            <Option type="QString" name="size_unit" value="MM" />
          </Option>
        </layer>
      </symbol>
      <symbol type="marker" name="3" alpha="1" clip_to_extent="1" force_rhr="0">
        <layer class="SimpleMarker" enabled="1" locked="0" pass="0">
          <Option type="Map">
            <Option type="QString" name="color" value="0,0,0,0" />
            <Option type="QString" name="name" value="circle" />
            <Option type="QString" name="outline_color" value="20,20,20,255" />
            <Option type="QString" name="outline_style" value="solid" />
            <Option type="QString" name="outline_width" value="0.9" />
            <Option type="QString" name="outline_width_unit" value="MM" />
            <Option type="QString" name="size" value="4" />
            <Option type="QString" name="size_unit" value="MM" />
          </Option>
        </layer>
        <layer class="SimpleMarker" enabled="1" locked="0" pass="0">
          <Option type="Map">
            <Option type="QString" name="color" value="255,255,255,0" />
            <Option type="QString" name="name" value="circle" />
            <Option type="QString" name="outline_color" value="255,212,0,255" />
            <Option type="QString" name="outline_style" value="solid" />
            <Option type="QString" name="outline_width" value="0.5" />
            <Option type="QString" name="outline_width_unit" value="MM" />
            <Option type="QString" name="size" value="4" />
            <Option type="QString" name="size_unit" value="MM" />
          </Option>
        </layer>
      </symbol>
    </symbols>
  </renderer-v2>
</qgis>
