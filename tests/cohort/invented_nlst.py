"""Rows of NLST's clinical tables: real column names, codes and text formats; the participants are invented."""

from lungsynth.cohort.nlst import LOBES


def person(pid: str, can_scr: str, candx_days: str = ".N", **values: str) -> dict[str, str]:
    """A row of `nlst_prsn`: screened 10, 375 and 740 days after randomisation."""
    row = {"dicom_patient_id": pid, "age": "61", "gender": "2", "can_scr": can_scr, "candx_days": candx_days}
    row |= {"scr_days0": "10", "scr_days1": "375", "scr_days2": "740"}
    return row | dict.fromkeys(LOBES, ".N" if can_scr == "0" else "0") | values


def cancer(pid: str, candx_days: str, lc_order: str = "1", lc_topog: str = "C349") -> dict[str, str]:
    """A row of `nlst_canc`."""
    return {"dicom_patient_id": pid, "lc_order": lc_order, "candx_days": candx_days, "lc_topog": lc_topog}


def nodule(
    pid: str,
    sct_slice_num: str,
    sct_epi_loc: str = "1",
    study_yr: str = "0",
    sct_ab_desc: str = "51",
    sct_long_dia: str = "12",
) -> dict[str, str]:
    """A row of `nlst_ctab`."""
    row = {"dicom_patient_id": pid, "study_yr": study_yr, "sct_ab_desc": sct_ab_desc, "sct_ab_num": sct_slice_num}
    return row | {"sct_epi_loc": sct_epi_loc, "sct_slice_num": sct_slice_num, "sct_long_dia": sct_long_dia}
