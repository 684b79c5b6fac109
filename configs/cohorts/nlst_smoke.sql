-- Sixty patients of NLST with all of their CT series and segmentations: thirty whose lung tumour NLSTSeg segmented, thirty
-- of whom nobody published a lesion. The rules of the run choose among them.
--
-- These controls are *presumed* free of cancer. Of about a thousand NLST participants with lung cancer 601 have a
-- segmentation, so among 30 of 26,000 one undetected case is unlikely, not impossible. The trial's clinical tables settle
-- it; this query needs nothing but the packaged index.
WITH annotated AS (
    SELECT DISTINCT patient, analysis_result FROM series
    WHERE collection = 'nlst' AND analysis_result IN ('nlstseg', 'nlst_sybil', 'lidc_annot_nlst501')
),
drawn AS (
    (SELECT patient FROM annotated WHERE analysis_result = 'nlstseg' ORDER BY md5(patient) LIMIT 30)
    UNION ALL
    (SELECT DISTINCT patient FROM series ANTI JOIN annotated USING (patient)
     WHERE collection = 'nlst' AND modality = 'CT' ORDER BY md5(patient) LIMIT 30)
)
SELECT series.* FROM series JOIN drawn USING (patient)
WHERE collection = 'nlst' AND modality IN ('CT', 'SEG')
