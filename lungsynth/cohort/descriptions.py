"""Facts about a CT series' reconstruction from its description and maker, without fetching it.

NLST's descriptions read `year,type,maker,model,kernel,diameter,thickness,kVp,mAs,pitch,interval`, for example
`2,OPA,GE,LSPLUS,STANDARD,360,2.5,120,80,0.1,1.5`. The type abbreviates DICOM's Image Type (PS3.3 C.7.6.1.1.2):
O original or D derived, P primary or S secondary, A axial, L localizer, R reformatted. Other collections have free
text, from which nothing is guessed: the columns are missing, and geometry is checked when files are read.
"""

import re

import pandas as pd

_NLST = r"^\d,(?P<image_type>[OD][PS][A-Z]?),[^,]*,[^,]*,(?P<kernel>[^,]*),[^,]*,(?P<thickness_mm>[^,]*),"
_NO_KERNEL = ("", "na", "null", "unk", "unkn")
_THICKNESS_MM = (0.1, 50)  # NLST writes 999 where it is not known

SHARPNESS = {
    "GE": ("STANDARD|SOFT|DETAIL|BODY FILTER", "LUNG|BONE|BONEPLUS|EDGE"),
    "Siemens": (r"B[1-4]\d[fs]", r"B[5-9]\d[fs]"),  # the number rises with sharpness; 45 and below show soft tissue
    "Philips": ("A|B|C", "D|E|L|YC"),
    "Toshiba": (r"FC[0-2]\d", r"FC[3-9]\d"),  # 01 to 29 body; 30 to 39 bone, 50 to 59 lung, 80 to 89 high resolution
}
"""Soft and sharp kernels by maker, as regular expressions of the whole name.

They name all but 156 of NLST's 136,261 series of the type OPA. NLST's protocol asked for a soft or standard kernel
and let sites add a sharp one (NLST Research Team, Radiology 2011;258:243), which is why most studies have both.
"""
_MAKERS = {"GE": "GE", "SIEMENS": "Siemens", "PHILIPS": "Philips", "TOSHIBA": "Toshiba", "CANON": "Toshiba"}


def describe(series: pd.DataFrame) -> pd.DataFrame:
    """`series` with the columns maker, image_type, kernel, thickness_mm and sharpness; missing where not known.

    Sharpness is `soft`, `sharp`, or missing for a kernel that is in neither list of `SHARPNESS`.
    """
    parsed = series["series_description"].str.extract(_NLST)
    thickness = pd.to_numeric(parsed["thickness_mm"], errors="coerce").astype("Float64")
    kernel = parsed["kernel"].mask(parsed["kernel"].str.lower().isin(_NO_KERNEL))
    described = series.assign(
        maker=maker(series["manufacturer"]),
        image_type=parsed["image_type"].astype("string"),
        kernel=kernel.astype("string"),
        thickness_mm=thickness.where(thickness.between(*_THICKNESS_MM)),
    )
    pairs = described[["maker", "kernel"]].drop_duplicates().dropna()
    pairs["sharpness"] = [_sharpness(*pair) for pair in pairs.itertuples(index=False)]
    return described.merge(pairs.astype("string"), on=["maker", "kernel"], how="left")


def maker(manufacturer: pd.Series) -> pd.Series:
    """The maker's short name for each DICOM Manufacturer, such as `GE` for `GE MEDICAL SYSTEMS`."""
    names = {name: _maker(name) for name in manufacturer.dropna().unique()}
    return manufacturer.map(names).astype("string")


def _maker(manufacturer: str) -> str:
    first = re.split(r"[^A-Z]", manufacturer.upper().strip())[0]
    return _MAKERS.get(first, manufacturer.strip())


def _sharpness(maker: str, kernel: str) -> str | None:
    soft, sharp = SHARPNESS.get(maker, ("", ""))
    if re.fullmatch(soft, kernel):
        return "soft"
    return "sharp" if re.fullmatch(sharp, kernel) else None
